-- 3.3 A process that returns a value and a string has failed: EXIT has the error and no value.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:give", "lua.support:processes", "value", "text")
  local result = puppets.exit(pid)
  check.is_nil(result.value)
  check.error_is(result.error, "Internal", "^text$", false)
end
