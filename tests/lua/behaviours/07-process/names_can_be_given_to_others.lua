-- 5.2 `register(name, pid)` gives the name to another process.
-- imports: puppets=lua.support:puppets
return function()
  local name, puppet = check.unique("other"), puppets.new()
  check.is_true((process.registry.register(name, puppet)))
  check.equal(process.registry.lookup(name), puppet)
  check.equal(puppets.ask(name, "pid"), puppet)
  puppets.tell(name, "return")
end
