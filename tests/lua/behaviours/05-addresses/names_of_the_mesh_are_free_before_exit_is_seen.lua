-- 5.2 Names are released before the EXIT event is sent: those that the whole mesh sees too.
return function()
  for _, scope in ipairs{ process.registry.EVENTUAL, process.registry.CONSISTENT, process.registry.STRONG } do
    local name = check.unique("gone")
    local pid = process.spawn_monitored("lua.support:names_itself", "lua.support:processes", process.pid(), scope, name)
    check.equal(check.receive(process.listen("named")), { true })
    process.send(pid, "stop")
    check.equal(check.receive(process.events()).kind, process.event.EXIT)
    check.fails("NotFound", "name not registered", process.registry.lookup(name))
    check.is_true(process.registry.register(name, scope))
    process.registry.unregister(name, scope)
  end
end
