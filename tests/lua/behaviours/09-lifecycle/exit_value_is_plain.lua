-- 9 `result.value` is the plain Lua value; nil and false are no errors.
-- imports: puppets=lua.support:puppets
return function()
  local H = "lua.support:processes"
  local pid = process.spawn_monitored("lua.support:give", H)
  check.equal(puppets.exit(pid), {})
  pid = process.spawn_monitored("lua.support:give", H, false)
  check.equal(puppets.exit(pid), { value = false })
  pid = process.spawn_monitored("lua.support:give", H, 42)
  check.type_is(puppets.exit(pid).value, "integer")
  pid = process.spawn_monitored("lua.support:give", H, "text")
  check.equal(puppets.exit(pid), { value = "text" })
end
