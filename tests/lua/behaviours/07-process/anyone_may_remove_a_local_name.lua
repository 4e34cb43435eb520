-- 5.2 Anyone may remove a LOCAL name.
-- imports: puppets=lua.support:puppets
return function()
  local name, puppet = check.unique("open"), puppets.new()
  process.registry.register(name, puppet)
  check.is_true(process.registry.unregister(name))
  puppets.tell(puppet, "return")
end
