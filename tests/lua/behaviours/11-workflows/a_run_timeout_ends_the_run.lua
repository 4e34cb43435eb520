-- 11.2 `run_timeout` bounds one run: its error is a Timeout, not retryable, and tells which timeout it was (11.7).
-- imports: wf=lua.support:wf.lib
return function()
  for _, limit in ipairs({ 50, "50ms" }) do
    local err = wf.error(wf.start("wf.sleep", { run_timeout = limit }, "1h"))
    check.error_is(err, "Timeout", nil, false)
    check.type_is(err:details().timeout_type, "string")
  end
end
