-- 11.8 Processes watch workflows as functions do: EXIT to monitors, LINK_DOWN to links.
-- as: process
return function()
  process.set_options{ trap_links = true }
  local good = process.spawn_monitored("lua.support:wf.echo", "lua.support:worker", 5)
  local exit = check.receive(process.events())
  check.equal({ exit.kind, exit.from, exit.result.value }, { "pid.exit", good, 5 })
  local bad = process.spawn_linked("lua.support:wf.fail", "lua.support:worker", { message = "no" })
  local down = check.receive(process.events())
  check.equal({ down.kind, down.from }, { "pid.link.down", bad })
  check.error_is(down.result.error, "Internal", "^no$")
end
