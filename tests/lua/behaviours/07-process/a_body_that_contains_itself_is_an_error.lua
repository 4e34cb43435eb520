-- 3.4 Cyclic tables are an error: `send` returns it, a builder raises it, and nothing is sent.
return function()
  local cycle = { list = {} }
  cycle.list[1] = cycle
  check.is_false(check.fails("Invalid", nil, process.send(process.pid(), "x", cycle)):retryable())
  check.raises(function() process.with_options{}:with_message("x", cycle) end)
  check.nothing(process.inbox(), "10ms")
end
