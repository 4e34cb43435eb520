-- 5.2 Names are released before the EXIT event is sent, so after an EXIT `lookup` fails (trap 15.11).
return function()
  local host, scope = "lua.support:processes", process.registry.LOCAL
  for _ = 1, 5 do
    local name = check.unique("gone")
    local pid = process.spawn_monitored("lua.support:answers", host)
    check.is_true(process.registry.register(name, pid, scope))
    process.send(pid, "stop")
    check.equal(check.receive(process.events()).kind, process.event.EXIT)
    check.fails("NotFound", "name not registered", process.registry.lookup(name))
    check.is_true(process.registry.register(name))
  end
end
