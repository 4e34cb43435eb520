-- 11.8 A link to a workflow: LINK_DOWN when it fails, EXIT when it succeeds (trap 8).
return function()
  process.set_options{ trap_links = true }
  local bad = process.spawn_linked("lua.support:wf.fail", "lua.support:worker", { message = "no", kind = "Conflict" })
  local down = check.receive(process.events())
  check.equal({ down.kind, down.from }, { "pid.link.down", bad })
  check.error_is(down.result.error, "Conflict", "^no$")
  local good = process.spawn_linked("lua.support:wf.echo", "lua.support:worker", 5)
  local exit = check.receive(process.events())
  check.equal({ exit.kind, exit.from, exit.result.value }, { "pid.exit", good, 5 })
  check.nothing(process.events())
end
