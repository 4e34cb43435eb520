-- 1.2 `${env:NAME}`: env variable by public name or by its entry ID; names go through the env system, not to the OS.
return function()
  check.eventually(function() return process.send("suite.input", "ask") end)
  local input = check.receive(process.listen("input"))
  check.equal(input[4], "green", "by public name")
  check.equal(input[5], "green", "by entry ID")
end
