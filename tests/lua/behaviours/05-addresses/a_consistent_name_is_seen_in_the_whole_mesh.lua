-- 5.2 Scopes other than LOCAL reach the whole mesh.
return function()
  for _, scope in ipairs{ process.registry.EVENTUAL, process.registry.CONSISTENT, process.registry.STRONG } do
    local name = check.unique("everywhere")
    check.is_true(process.registry.register(name, scope))
    check.eventually(function()
      return process.exec("lua.support:looks_up", "lua.support:processes", name) == process.pid()
    end)
    process.registry.unregister(name, scope)
  end
end
