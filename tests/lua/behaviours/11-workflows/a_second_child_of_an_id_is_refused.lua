-- 11.3 A child with an id that runs: `fail` refuses it, `use_existing` gives its PID.
-- as: workflow
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("sibling")
  local pid = process.with_options({ id = id }):spawn("lua.support:wf.wait", "lua.support:worker")
  local other, err = process.with_options({ id = id, id_conflict_policy = "fail" }):spawn("lua.support:wf.wait", "lua.support:worker")
  check.is_nil(other)
  check.type_is(err, "userdata")
  check.equal(process.with_options({ id = id }):spawn("lua.support:wf.wait", "lua.support:worker"), pid)
  process.send(pid, "done", 1)
  check.equal(wf.value(pid), 1)
end
