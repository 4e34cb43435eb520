-- 1.2 `${env:NAME|fallback}`: the env variable, or the default.
return function()
  check.eventually(function() return process.send("suite.input", "ask") end)
  check.equal(check.receive(process.listen("input"))[2], "long form")
end
