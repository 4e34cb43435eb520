-- 11.3 While a workflow goes on as a new run its id is one that runs: `fail` refuses a start, `use_existing` finds it.
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("chain")
  local pid = wf.start("wf.for_ever", { id = id }, 0)
  for _ = 1, 20 do
    check.equal(process.with_options({ id = id }):spawn("lua.support:wf.echo", wf.worker, 1), pid)
    local other, err = process.with_options({ id = id, id_conflict_policy = "fail" }):spawn("lua.support:wf.echo", wf.worker, 1)
    check.is_nil(other)
    check.type_is(err, "userdata")
  end
  local new = process.with_options({ id = id, id_conflict_policy = "terminate_existing" }):spawn("lua.support:wf.wait", wf.worker, "new")
  check.equal(new, pid)
  process.send(new, "input?")
  check.equal(check.receive(process.listen("input?")), "new")
  process.send(new, "done")
end
