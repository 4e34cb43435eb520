-- 11.2 The values of policies: any case, and `-` is `_`.
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("spelling")
  local pid = wf.start("wf.wait", { id = id })
  for _, policy in ipairs({ "use_existing", "USE_EXISTING", "Use-Existing", "use-existing" }) do
    check.equal(process.with_options({ id = id, id_conflict_policy = policy }):spawn("lua.support:wf.wait", wf.worker), pid)
  end
  local other, err = process.with_options({ id = id, id_conflict_policy = "FAIL" }):spawn("lua.support:wf.wait", wf.worker)
  check.is_nil(other)
  check.type_is(err, "userdata")
  process.send(pid, "done", 1)
  check.equal(wf.value(pid), 1)
  other, err = process.with_options({ id = id, id_reuse_policy = "Reject-Duplicate" }):spawn("lua.support:wf.wait", wf.worker)
  check.is_nil(other)
  check.type_is(err, "userdata")
end
