-- 11.2 `wait_for_cancellation`: the cancel of a child returns after the child has ended.
-- as: workflow
return function()
  local spawner = process.with_options({ wait_for_cancellation = true })
  local pid = spawner:spawn("lua.support:wf.lingers", "lua.support:worker", "60ms")
  check.is_true(process.cancel(pid))
  local r = channel.select{ process.events():case_receive(), default = true }
  check.equal(r.value.from, pid)
  check.equal(r.value.result.value, "lingered")
end
