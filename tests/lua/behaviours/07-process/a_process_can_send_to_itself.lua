-- 7.3 A process may send to its own PID and to its own name.
-- as: process
return function()
  local name = check.unique("self")
  process.registry.register(name)
  process.send(process.pid(), "a", 1)
  process.send(name, "b", 2)
  local inbox = process.inbox()
  check.equal(check.receive(inbox):payload():data(), 1)
  local by_name = check.receive(inbox)
  check.equal(by_name:payload():data(), 2)
  check.equal(by_name:from(), process.pid())
end
