-- 5.2 Names go when their process ends, whatever ends it.
-- imports: puppets=lua.support:puppets
return function()
  local name, puppet = check.unique("killed"), puppets.new()
  puppets.ask(puppet, "register", name, puppet, process.registry.CONSISTENT)
  puppets.watch(puppet)
  check.is_true((process.terminate(name)))
  puppets.exit(puppet)
  check.fails("NotFound", "name not registered", process.registry.lookup(name))
end
