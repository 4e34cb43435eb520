-- 11.2 `execution_timeout` bounds a chain of runs: continuing as new does not escape it.
-- imports: wf=lua.support:wf.lib
return function()
  local err = wf.error(wf.start("wf.for_ever", { execution_timeout = "80ms" }))
  check.error_is(err, "Timeout", nil, false)
  check.type_is(err:details().timeout_type, "string")
end
