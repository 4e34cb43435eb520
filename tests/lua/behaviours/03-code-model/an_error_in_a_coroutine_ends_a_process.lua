-- 3.1 An error that nobody catches, in any coroutine, ends the unit with that error: a process too.
return function()
  local pid = process.spawn_monitored("lua.support:process_with_a_bad_coroutine", "lua.support:processes")
  local ev = check.receive(process.events())
  check.equal({ ev.kind, ev.from }, { process.event.EXIT, pid })
  check.error_is(ev.result.error, "Internal", "coroutines.lua:%d+: in a coroutine$")
end
