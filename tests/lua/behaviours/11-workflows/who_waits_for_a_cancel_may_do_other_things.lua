-- 11.2 While one coroutine waits for the end of a cancelled child, others can send to it.
-- as: workflow
-- imports: wf=lua.support:wf.lib
return function()
  local pid = process.with_options({ wait_for_cancellation = true }):spawn("lua.support:wf.collect", "lua.support:worker", 2)
  local canceled = channel.new(1)
  coroutine.spawn(function() canceled:send(process.cancel(pid)) end)
  check.is_true(process.send(pid, "a", 1))
  check.equal(channel.select{ canceled:case_receive(), default = true }.default, true)
  check.is_true(process.send(pid, "b", 2))
  check.is_true(check.receive(canceled, "20s"))
  check.equal(#wf.value(pid), 2)
end
