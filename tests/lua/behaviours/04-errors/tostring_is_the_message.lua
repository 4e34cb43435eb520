-- 4 `tostring(e)`: the message; `"x" .. e`, `e .. "x"` concatenate it.
return function()
  local err = errors.new{ message = "no such user", kind = errors.NOT_FOUND }
  check.equal(tostring(err), "no such user")
  check.equal("x" .. err, "xno such user")
  check.equal(err .. "x", "no such userx")
  check.type_is(err:stack(), "string")
end
