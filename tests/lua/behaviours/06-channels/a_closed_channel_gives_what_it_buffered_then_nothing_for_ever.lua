-- 6.1 On a closed channel `receive` gives first the buffered values, then `nil, false`, for ever.
return function()
  local ch = channel.new(3)
  ch:send("a")
  ch:send("b")
  ch:close()
  check.equal({ ch:receive() }, { "a", true })
  check.equal({ ch:receive() }, { "b", true })
  for _ = 1, 3 do
    local results = table.pack(ch:receive())
    check.equal(results, { n = 2, nil, false })
  end
end
