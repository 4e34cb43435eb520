-- 11.2 Without `wait_for_cancellation` the cancel of a child returns at once.
-- as: workflow
return function()
  local pid = process.spawn("lua.support:wf.sleep", "lua.support:worker", "1h")
  check.is_true(process.cancel(pid))
  check.equal(channel.select{ process.events():case_receive(), default = true }.default, true)
end
