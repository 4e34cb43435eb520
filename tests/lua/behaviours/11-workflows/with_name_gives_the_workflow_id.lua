-- 11.3 `with_name` sets the workflow id.
-- imports: wf=lua.support:wf.lib
return function()
  local name = check.unique("name")
  local pid = process.with_context({}):with_name(name):spawn_monitored("lua.support:wf.info", wf.worker)
  check.equal(wf.value(pid).workflow_id, name)
end
