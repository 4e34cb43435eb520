-- 15 Names are free before EXIT is seen, of every scope (trap 11).
-- imports: puppets=lua.support:puppets
return function()
  local names, puppet = {}, puppets.new()
  puppets.watch(puppet)
  for scope = 0, 3 do
    names[scope] = check.unique("free")
    check.is_true((process.registry.register(names[scope], puppet, scope)))
  end
  puppets.tell(puppet, "return", "done")
  check.equal(puppets.exit(puppet).value, "done")
  for scope = 0, 3 do
    check.fails("NotFound", "name not registered", process.registry.lookup(names[scope]))
    check.is_true((process.registry.register(names[scope], process.pid(), scope)))
  end
end
