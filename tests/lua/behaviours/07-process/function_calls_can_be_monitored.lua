-- 9 Function calls can be monitored like processes: EXIT has the value, or the error.
-- imports: puppets=lua.support:puppets
return function()
  local pid = puppets.call()
  puppets.watch(pid)
  puppets.tell(pid, "return", { n = 1 })
  check.equal(puppets.exit(pid), { value = { n = 1 } })
  pid = puppets.call()
  puppets.watch(pid)
  puppets.tell(pid, "fail", errors.new{ message = "no", kind = errors.CONFLICT })
  local result = puppets.exit(pid)
  check.is_nil(result.value)
  check.error_is(result.error, "Conflict", "^no$")
end
