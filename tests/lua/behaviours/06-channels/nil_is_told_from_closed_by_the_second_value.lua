-- 6.1 nil cannot be told from "closed" without looking at the second value.
return function()
  local ch = channel.new(1)
  ch:send(nil)
  check.equal(table.pack(ch:receive()), { n = 2, nil, true })
  ch:close()
  check.equal(table.pack(ch:receive()), { n = 2, nil, false })
end
