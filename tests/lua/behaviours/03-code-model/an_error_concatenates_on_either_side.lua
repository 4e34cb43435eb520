-- 3.2 An Error's text is used by `..` on either side.
return function()
  local err = errors.new("broken")
  check.equal("it is " .. err, "it is broken")
  check.equal(err .. ", really", "broken, really")
  check.equal(err .. err, "brokenbroken")
  check.equal("error " .. 1 .. ": " .. err .. ".", "error 1: broken.")
end
