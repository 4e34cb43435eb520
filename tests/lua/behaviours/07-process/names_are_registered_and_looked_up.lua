-- 5.2 `register` gives true and makes `lookup` give the PID, by default of the caller.
return function()
  local name = check.unique("mine")
  check.fails("NotFound", "name not registered", process.registry.lookup(name))
  check.is_true((process.registry.register(name)))
  check.equal(process.registry.lookup(name), process.pid())
  process.send(name, "x", 1)
  check.equal(check.receive(process.inbox()):payload():data(), 1)
end
