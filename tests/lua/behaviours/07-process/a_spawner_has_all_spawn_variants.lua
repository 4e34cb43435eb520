-- 7.2 A Spawner spawns, monitors and links like the functions of the module.
return function()
  process.set_options{ trap_links = true }
  local spawner = process.with_context{ a = 1 }
  local raise, H = "lua.support:raise", "lua.support:processes"
  check.type_is(spawner:spawn(raise, H, "x"), "string")
  check.nothing(process.events(), "20ms")
  spawner:spawn_monitored(raise, H, "x")
  check.equal(check.receive(process.events()).kind, "pid.exit")
  spawner:spawn_linked(raise, H, "x")
  check.equal(check.receive(process.events()).kind, "pid.link.down")
  spawner:spawn_linked_monitored(raise, H, "x")
  check.equal(check.receive(process.events()).kind, "pid.exit")
  check.equal(check.receive(process.events()).kind, "pid.link.down")
  check.nothing(process.events(), "20ms")
end
