-- 5.2 A function call may hold a name; it is free before its EXIT is seen.
-- imports: puppets=lua.support:puppets
return function()
  local pid = puppets.call()
  local name = check.unique("call")
  check.is_true((process.registry.register(name, pid)))
  puppets.watch(name)
  check.equal(puppets.ask(name, "pid"), pid)
  puppets.tell(name, "return")
  puppets.exit(pid)
  check.fails("NotFound", "name not registered", process.registry.lookup(name))
end
