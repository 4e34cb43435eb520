-- 6.1 Channels live inside one unit: what goes through is not copied, functions and channels too.
return function()
  local ch = channel.new(4)
  local t, f, inner = {}, function() end, channel.new()
  ch:send(t)
  ch:send(f)
  ch:send(inner)
  check.is_true(ch:receive() == t)
  check.is_true(ch:receive() == f)
  check.is_true(ch:receive() == inner)
end
