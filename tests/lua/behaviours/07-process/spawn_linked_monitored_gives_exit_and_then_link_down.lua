-- 9 With both monitor and link, EXIT comes first.
return function()
  process.set_options{ trap_links = true }
  for _ = 1, 10 do
    local pid = process.spawn_linked_monitored("lua.support:raise", "lua.support:processes", "no")
    local exit, down = check.receive(process.events()), check.receive(process.events())
    check.equal(exit.kind, process.event.EXIT)
    check.equal(down.kind, process.event.LINK_DOWN)
    check.equal(exit.from, pid)
    check.equal(down.from, pid)
    check.error_is(exit.result.error, "Internal", "no$")
    check.error_is(down.result.error, "Internal", "no$")
  end
end
