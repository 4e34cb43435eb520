-- 5.2 Taken by another pid: `AlreadyExists`; the same pid again: true; in the scopes of the whole mesh as well.
return function()
  for _, scope in ipairs{ process.registry.EVENTUAL, process.registry.CONSISTENT, process.registry.STRONG } do
    local name = check.unique("taken")
    local pid = process.spawn("lua.support:names_itself", "lua.support:processes", process.pid(), scope, name, name)
    check.equal(check.receive(process.listen("named")), { true, true })
    check.fails("AlreadyExists", "name already registered", process.registry.register(name, scope))
    process.send(pid, "stop")
  end
end
