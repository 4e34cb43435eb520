-- 1.2 The default is also used when the variable is empty.
return function()
  check.eventually(function() return process.send("suite.input", "ask") end)
  check.equal(check.receive(process.listen("input"))[6], "of nothing")
end
