-- 6.2 The first ready case in list order is taken, whether it sends or receives (trap 15.13).
return function()
  local a, b = channel.new(1), channel.new(1)
  b:send("b")
  local r = channel.select{ a:case_send("a"), b:case_receive() }
  check.is_true(r.channel == a)
  r = channel.select{ a:case_send("again"), b:case_receive() }
  check.is_true(r.channel == b, "a is full now")
  check.equal(a:receive(), "a")
end
