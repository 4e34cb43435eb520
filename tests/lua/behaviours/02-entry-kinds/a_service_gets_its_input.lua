-- 2.2 A service spawns its process on its host with `input` as the arguments of `main`.
return function()
  local name, answers = "lua.support.phoenix", process.listen("phoenix")
  check.eventually(function() return process.send(name, "ask") end)
  local answer = check.receive(answers)
  check.matches(answer.pid, "lua%.support:processes|")
  check.equal(answer.args, { { colour = "red", list = { 1, 2.5 } } })
end
