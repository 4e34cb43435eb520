-- 11.8 The end of a terminated workflow is an error: links get LINK_DOWN.
return function()
  process.set_options{ trap_links = true }
  local pid = process.spawn_linked("lua.support:wf.wait", "lua.support:worker")
  process.terminate(pid)
  local down = check.receive(process.events())
  check.equal({ down.kind, down.from }, { "pid.link.down", pid })
  check.error_is(down.result.error, "Canceled", "^workflow terminated$")
end
