-- 5.2 Every call that takes a destination takes a registered name.
-- imports: puppets=lua.support:puppets
return function()
  process.set_options{ trap_links = true }
  local name, puppet = check.unique("dest"), puppets.new()
  process.registry.register(name, puppet)
  check.is_true((process.link(name)))
  check.is_true((process.unlink(name)))
  check.is_true((process.monitor(name)))
  check.is_true((process.unmonitor(name)))
  check.is_true((process.monitor(name)))
  check.is_true((process.cancel(name)))
  check.equal(puppets.event().kind, process.event.CANCEL)
  check.is_true((process.terminate(name)))
  check.matches(puppets.exit(puppet).error, "process terminated")
  check.nothing(process.events(), "10ms")
end
