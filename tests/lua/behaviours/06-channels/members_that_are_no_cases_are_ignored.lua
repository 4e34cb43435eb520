-- 6.2 List members that are not cases are ignored.
return function()
  local ch = channel.new(1)
  ch:send("x")
  local r = channel.select{ "no case", 1, {}, ch, ch:case_receive() }
  check.is_true(r.channel == ch)
  check.equal(r.value, "x")
  check.is_true(channel.select{ "no case", default = true }.default)
end
