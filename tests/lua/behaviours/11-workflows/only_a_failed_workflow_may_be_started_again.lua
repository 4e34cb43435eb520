-- 11.3 `allow_duplicate_failed_only`: an id may be used again after a failure, not after a result.
-- imports: wf=lua.support:wf.lib
return function()
  local id, policy = check.unique("failed"), "allow_duplicate_failed_only"
  wf.error(wf.start("wf.fail", { id = id }, { message = "no" }))
  local spawner = process.with_options({ id = id, id_reuse_policy = policy })
  local pid = spawner:spawn("lua.support:wf.wait", wf.worker)
  check.type_is(pid, "string")
  process.monitor(pid)
  process.send(pid, "done")
  check.receive(process.events())
  local third, err = spawner:spawn("lua.support:wf.wait", wf.worker)
  check.is_nil(third)
  check.type_is(err, "userdata")
end
