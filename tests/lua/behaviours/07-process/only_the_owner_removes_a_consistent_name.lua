-- 5.2 A CONSISTENT or STRONG name is removed by its owner only.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  for _, scope in ipairs({ process.registry.CONSISTENT, process.registry.STRONG }) do
    local name = check.unique("owned")
    check.is_true((puppets.ask(puppet, "register", name, puppet, scope)))
    check.is_false((process.registry.unregister(name, scope)))
    check.equal(process.registry.lookup(name), puppet)
    check.is_true((puppets.ask(puppet, "unregister", name, scope)))
    check.eventually(function() return process.registry.lookup(name) == nil end)
  end
  puppets.tell(puppet, "return")
end
