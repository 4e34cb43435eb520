-- 6.1 Case objects are values: the same one serves many selects.
return function()
  local ch = channel.new(3)
  local case = ch:case_receive()
  for i = 1, 3 do
    ch:send(i)
    check.equal(channel.select{ case }.value, i)
  end
end
