-- 11.3 `terminate_existing`: the old run ends as terminated, and a new one starts under the id.
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("replaced")
  local old = wf.start("wf.wait", { id = id }, "old")
  local new = process.with_options({ id = id, id_conflict_policy = "terminate_existing" }):spawn("lua.support:wf.wait", wf.worker, "new")
  check.error_is(wf.error(old), "Canceled", "^workflow terminated$")
  check.equal(new, old)
  process.send(new, "input?")
  check.equal(check.receive(process.listen("input?")), "new")
  process.send(new, "done")
end
