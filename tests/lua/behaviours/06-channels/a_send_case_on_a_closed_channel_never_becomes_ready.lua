-- 6.2 `case_send` on a closed channel never becomes ready.
return function()
  local ch, other = channel.new(1), channel.new(1)
  ch:close()
  check.is_true(channel.select{ ch:case_send(1), default = true }.default)
  other:send("x")
  check.is_true(channel.select{ ch:case_send(1), other:case_receive() }.channel == other)
end
