-- 5.2 A process may hold many names, of all scopes; each of them reaches it.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  for scope = 0, 3 do
    local name = check.unique("name")
    check.is_true((process.registry.register(name, puppet, scope)))
    check.equal(process.registry.lookup(name), puppet)
    check.equal(puppets.ask(name, "pid"), puppet)
  end
  puppets.tell(puppet, "return")
end
