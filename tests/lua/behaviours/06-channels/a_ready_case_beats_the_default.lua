-- 6.2 The default is for when nothing is ready.
return function()
  local ch = channel.new(1)
  ch:send(7)
  local r = channel.select{ ch:case_receive(), default = true }
  check.equal(r.value, 7)
  check.is_nil(r.default)
end
