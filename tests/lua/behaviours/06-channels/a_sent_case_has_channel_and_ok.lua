-- 6.2 Send: `{channel = ch, ok = true}`.
return function()
  local ch = channel.new(1)
  local r = channel.select{ ch:case_send("x") }
  check.is_true(r.channel == ch)
  check.is_true(r.ok)
  check.is_nil(r.value)
  check.equal(ch:receive(), "x")
end
