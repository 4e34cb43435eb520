-- 8 Message bodies are copied like arguments (3.4), on the node and between nodes.
return function()
  local pid = process.spawn("lua.support:relays", "lua.support:processes", process.pid())
  local ch = process.listen("v")
  local values = { 1, 2.5, -7, "bytes \0 \255", true, false, { 1, { a = { 2 } } }, {}, math.maxinteger, 1e300 }
  for i, v in ipairs(values) do
    process.send(pid, "v", v)
    local got = check.receive(ch)
    check.equal(got, v, "value " .. i)
    check.equal(math.type(got), math.type(v))
  end
  process.send(pid, "v", errors.new{ message = "m", kind = errors.TIMEOUT, retryable = true })
  check.error_is(check.receive(ch), "Timeout", "^m$", true)
  process.send(pid, "stop")
end
