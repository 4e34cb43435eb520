-- 9 LINK_DOWN has the fields of EXIT, with the error of the peer.
return function()
  process.set_options{ trap_links = true }
  local own = errors.new{ message = "broken", kind = errors.CONFLICT, details = { a = 1 } }
  local pid = process.spawn_linked("lua.support:raise", "lua.support:processes", own)
  local event = check.receive(process.events())
  check.equal(event.kind, "pid.link.down")
  check.equal(event.from, pid)
  check.type_is(event.at, "number")
  check.is_nil(event.error)
  check.is_nil(event.result.value)
  check.error_is(event.result.error, "Conflict", "^broken$")
  check.equal(event.result.error:details(), { a = 1 })
end
