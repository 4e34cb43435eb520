-- 11.3 `reject_duplicate`: an id is used once only.
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("once")
  check.equal(wf.value(wf.start("wf.echo", { id = id, id_reuse_policy = "reject_duplicate" }, 1)), 1)
  local pid, err = process.with_options({ id = id, id_reuse_policy = "reject_duplicate" }):spawn("lua.support:wf.echo", wf.worker, 2)
  check.is_nil(pid)
  check.type_is(err, "userdata")
end
