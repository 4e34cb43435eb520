-- 6.2 Receive: `{channel = ch, value = v, ok = true}`.
return function()
  local ch = channel.new(1)
  ch:send({ 1 })
  local r = channel.select{ ch:case_receive() }
  check.is_true(r.channel == ch)
  check.equal(r.value, { 1 })
  check.is_true(r.ok)
  check.is_nil(r.default)
end
