-- 11.2 Without a `retry_policy` a failed workflow is not retried.
-- imports: wf=lua.support:wf.lib
return function()
  check.error_is(wf.error(wf.start("wf.retried", nil, 1, { message = "no", kind = "Unavailable" })), "Unavailable", "^no$")
end
