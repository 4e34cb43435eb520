-- 9 Whoever wants to obey a cancel returns from main; that is a normal end.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:obeys", "lua.support:processes")
  process.cancel(pid, "closing time")
  check.equal(puppets.exit(pid), { value = "closing time" })
end
