-- 6.2 A closed channel is always ready: `value = nil, ok = false`; its buffered values come first.
return function()
  local ch, open = channel.new(1), channel.new(1)
  ch:send("last")
  ch:close()
  open:send("open")
  check.equal(channel.select{ ch:case_receive(), open:case_receive() }.value, "last")
  for _ = 1, 2 do
    local r = channel.select{ ch:case_receive(), open:case_receive() }
    check.is_true(r.channel == ch)
    check.is_nil(r.value)
    check.is_false(r.ok)
  end
end
