-- 11.3 The option `id` sets the workflow id and beats `with_name` (11.2).
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("id")
  local pid = process.with_options({ id = id }):with_name("other"):spawn_monitored("lua.support:wf.info", wf.worker)
  check.equal(wf.value(pid).workflow_id, id)
end
