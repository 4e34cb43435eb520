-- 1.2 `$${` is a literal `${`.
return function()
  check.eventually(function() return process.send("suite.input", "ask") end)
  check.equal(check.receive(process.listen("input"))[3], "${SUITE_UNSET}")
end
