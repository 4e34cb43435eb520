-- 11.2 Errors that are not retryable, and kinds that the policy lists, end the workflow at once.
-- imports: wf=lua.support:wf.lib
return function()
  local policy = { initialInterval = "5ms", nonRetryableErrorTypes = { "Conflict" } }
  local final = { message = "no", kind = "Unavailable", retryable = false }
  check.error_is(wf.error(wf.start("wf.retried", { retry_policy = policy }, 1, final)), "Unavailable", "^no$", false)
  local listed = { message = "no", kind = "Conflict", retryable = true }
  check.error_is(wf.error(wf.start("wf.retried", { retry_policy = policy }, 1, listed)), "Conflict", "^no$")
end
