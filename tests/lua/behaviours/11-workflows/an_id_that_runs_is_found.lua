-- 11.3 `use_existing`, the default with an id: the PID of the running workflow, the input is ignored.
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("existing")
  local pid = wf.start("wf.wait", { id = id }, "first")
  check.equal(wf.start("wf.wait", { id = id, id_conflict_policy = "use_existing" }, "second"), pid)
  process.send(pid, "input?")
  check.equal(check.receive(process.listen("input?")), "first")
  process.send(pid, "done", "end")
  check.equal(wf.value(pid), "end")
end
