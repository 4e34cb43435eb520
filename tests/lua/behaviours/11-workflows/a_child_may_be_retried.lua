-- 11.2 The start options are those of children, too: a child with a retry policy is told of at its last end only.
-- as: workflow
-- imports: wf=lua.support:wf.lib
return function()
  local spawner = process.with_options({ retry_policy = { initial_interval = 2, maximum_attempts = 5 } })
  check.equal(wf.value(spawner:spawn("lua.support:wf.retried", "lua.support:worker", 2, { message = "no" })), 3)
end
