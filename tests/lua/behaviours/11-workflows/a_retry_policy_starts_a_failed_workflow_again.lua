-- 11.2 With a `retry_policy` a failed run is followed by another one, with the next `attempt`; the last one's end counts.
-- imports: wf=lua.support:wf.lib
return function()
  local policy = { initial_interval = 5, maximum_attempts = 3 }
  check.equal(wf.value(wf.start("wf.retried", { retry_policy = policy }, 2, { message = "no", kind = "Unavailable" })), 3)
  local err = wf.error(wf.start("wf.retried", { retry_policy = policy }, 9, { message = "no", kind = "Unavailable" }))
  check.error_is(err, "Unavailable", "^no$")
end
