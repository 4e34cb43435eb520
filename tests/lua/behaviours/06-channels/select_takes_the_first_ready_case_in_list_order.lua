-- 6.2 The first ready case in list order is taken; nothing is random.
return function()
  local a, b, c = channel.new(1), channel.new(1), channel.new(1)
  b:send("b")
  c:send("c")
  for _ = 1, 20 do
    local r = channel.select{ a:case_receive(), b:case_receive(), c:case_receive() }
    check.equal(r.value, "b")
    check.is_true(r.channel == b)
    check.is_true(r.ok)
    b:send("b")
  end
  local r = channel.select{ c:case_receive(), b:case_receive() }
  check.equal(r.value, "c")
end
