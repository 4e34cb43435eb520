-- 6.1 Closing twice is fine.
return function()
  local ch = channel.new()
  ch:close()
  ch:close()
  check.equal(select(2, ch:receive()), false)
end
