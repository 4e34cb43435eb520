-- 1.2 `${NAME|fallback}`: the short form, for upper-snake names.
return function()
  check.eventually(function() return process.send("suite.input", "ask") end)
  check.equal(check.receive(process.listen("input"))[1], "short form")
end
