-- 7.2 A taken name on a process host: the spawn variant adds no link.
-- imports: puppets=lua.support:puppets
return function()
  process.set_options{ trap_links = true }
  local name, puppet = check.unique("taken"), puppets.new()
  process.registry.register(name, puppet)
  puppets.watch(puppet)
  local found = process.with_options{}:with_name(name):spawn_linked_monitored("lua.support:give", "lua.support:processes")
  check.equal(found, puppet)
  puppets.tell(puppet, "fail", "no")
  puppets.exit(puppet)
  check.nothing(process.events(), "20ms")
end
