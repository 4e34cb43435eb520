-- 5.2 Taken by another pid: `AlreadyExists`, `name already registered`; the same pid again: true.
return function()
  local name = check.unique("taken")
  local pid = process.spawn("lua.support:answers", "lua.support:processes")
  check.is_true(process.registry.register(name, pid))
  check.is_true(process.registry.register(name, pid))
  check.fails("AlreadyExists", "name already registered", process.registry.register(name))
  check.equal(process.registry.lookup(name), pid)
  process.send(pid, "stop")
end
