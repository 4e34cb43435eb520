-- 5.2 `CONSISTENT`/`STRONG`: only the owner may remove.
return function()
  for _, scope in ipairs{ process.registry.CONSISTENT, process.registry.STRONG } do
    local name = check.unique("mine")
    check.is_true(process.registry.register(name, scope))
    local removed = process.exec("lua.support:unregisters", "lua.support:processes", name, scope)
    check.is_true(removed ~= true)
    check.equal(process.registry.lookup(name), process.pid())
    check.is_true((process.registry.unregister(name, scope)))
    check.fails("NotFound", nil, process.registry.lookup(name))
  end
end
