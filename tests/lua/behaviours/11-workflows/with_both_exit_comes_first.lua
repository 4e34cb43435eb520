-- 11.8 With monitor and link, EXIT comes first, then LINK_DOWN (9).
return function()
  process.set_options{ trap_links = true }
  local pid = process.spawn_linked_monitored("lua.support:wf.fail", "lua.support:worker", { message = "no" })
  local first, second = check.receive(process.events()), check.receive(process.events())
  check.equal({ first.kind, first.from }, { "pid.exit", pid })
  check.equal({ second.kind, second.from }, { "pid.link.down", pid })
  check.nothing(process.events())
end
