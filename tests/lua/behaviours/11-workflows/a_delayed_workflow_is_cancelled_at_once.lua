-- 11.7 A workflow that is cancelled before its first run has begun: Canceled, `operation canceled`, not retryable.
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.echo", { start_delay = "1h" })
  process.cancel(pid)
  check.error_is(wf.error(pid), "Canceled", "^operation canceled$", false)
end
