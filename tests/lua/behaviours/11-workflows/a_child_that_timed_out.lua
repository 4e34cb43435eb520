-- 11.7 A child that ran out of time: Timeout, not retryable, `details().timeout_type`.
-- as: workflow
-- imports: wf=lua.support:wf.lib
return function()
  local pid = process.with_options({ run_timeout = "30ms" }):spawn("lua.support:wf.sleep", "lua.support:worker", "1h")
  local err = wf.error(pid)
  check.error_is(err, "Timeout", nil, false)
  check.type_is(err:details().timeout_type, "string")
end
