-- 8 `process.send(m:from(), …)` answers, from a process to a function call and back.
return function()
  local pid = process.spawn("lua.support:answers", "lua.support:processes")
  for i = 1, 10 do
    process.send(pid, "ask", i)
    local answer = check.receive(process.listen("answer", { message = true }))
    check.equal(answer:from(), pid)
    check.equal(answer:payload():data(), { topic = "ask", from = process.pid(), data = i })
  end
  process.send(pid, "stop")
end
