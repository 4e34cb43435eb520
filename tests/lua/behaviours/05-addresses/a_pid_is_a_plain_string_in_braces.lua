-- 5.1 A PID is a plain string `{node@host|unique}` or `{host|unique}`; it may be the key of a table.
return function()
  local pid = process.pid()
  check.type_is(pid, "string")
  check.matches(pid, "^{[^|]+|[^|]+}$")
  local known = { [pid] = true }
  check.is_true(known[process.pid()])
end
