-- 11.7 `process.exec` of a workflow from outside gives its value, or nil and its error.
return function()
  check.equal(process.exec("lua.support:wf.echo", "lua.support:worker", { 1 }), { 1 })
  local value, err = process.exec("lua.support:wf.fail", "lua.support:worker", { message = "no", kind = "Conflict", retryable = false })
  check.is_nil(value)
  check.error_is(err, "Conflict", "^no$", false)
end
