-- 11.7 To the details of a child's error are added `_wrapper`, `_workflow_id`, `_workflow_type`, `_run_id`, `_retry_state`.
-- as: workflow
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("child")
  local failure = { message = "no", kind = "Conflict", retryable = true, details = { mine = { 1 } } }
  local pid = process.with_options({ id = id }):spawn("lua.support:wf.fail", "lua.support:worker", failure)
  local details = wf.error(pid):details()
  check.equal(details.mine, { 1 })
  check.equal(details._wrapper, "child_workflow")
  check.equal(details._workflow_id, id)
  check.equal(details._workflow_type, "lua.support:wf.fail")
  check.type_is(details._run_id, "string")
  check.type_is(details._retry_state, "string")
end
