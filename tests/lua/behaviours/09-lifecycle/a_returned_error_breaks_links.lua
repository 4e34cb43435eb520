-- 9 A process that returns `nil, err` has ended with an error: LINK_DOWN.
return function()
  process.set_options{ trap_links = true }
  local own = errors.new{ message = "no", kind = errors.TIMEOUT }
  local pid = process.spawn_linked("lua.support:give", "lua.support:processes", nil, own)
  local event = check.receive(process.events())
  check.equal({ event.kind, event.from }, { process.event.LINK_DOWN, pid })
  check.error_is(event.result.error, "Timeout", "^no$")
end
