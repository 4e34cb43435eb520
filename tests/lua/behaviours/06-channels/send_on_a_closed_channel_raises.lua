-- 6.1 On a closed channel `send` raises `send on closed channel`.
return function()
  local ch = channel.new(1)
  ch:close()
  check.raises(function() ch:send(1) end, "send on closed channel")
end
