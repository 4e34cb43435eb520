-- 9 EXIT is `{kind, from, at, result = {value, error}}`, and nothing else.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:give", "lua.support:processes", { total = 3 })
  local event = check.receive(process.events())
  check.type_is(event, "table")
  check.type_is(event.at, "number")
  check.equal(event, { kind = "pid.exit", from = pid, at = event.at, result = { value = { total = 3 } } })
end
