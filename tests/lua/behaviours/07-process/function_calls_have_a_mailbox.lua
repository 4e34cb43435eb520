-- 3.1 A function call has a PID and a mailbox: it can be sent to and answers.
-- imports: puppets=lua.support:puppets
return function()
  local pid, future = puppets.call()
  check.matches(pid, "lua%.support:puppet_call#lua%.%d+|")
  check.equal(puppets.ask(pid, "pid"), pid)
  check.equal(puppets.ask(pid, "id"), "lua.support:puppet_call")
  puppets.tell(pid, "return", "done")
  check.equal(check.receive(future:channel()):data(), "done")
  check.fails("NotFound", "process not found", process.send(pid, "x"))
end
