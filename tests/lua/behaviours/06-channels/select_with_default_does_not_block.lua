-- 6.2 Nothing ready, default: `{default = true, ok = true}`.
return function()
  local ch = channel.new()
  check.equal(channel.select{ ch:case_receive(), default = true }, { default = true, ok = true })
  check.equal(channel.select({ ch:case_receive(), ch:case_send(1) }, true), { default = true, ok = true })
  check.equal(channel.select{ default = true }, { default = true, ok = true })
end
