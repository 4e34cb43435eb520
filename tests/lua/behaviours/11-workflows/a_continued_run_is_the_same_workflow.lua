-- 11.9 `process.upgrade(nil, ...)` in a workflow: a new run with the same id and PID, its arguments, and a new run id.
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("again")
  local pid = wf.start("wf.again", { id = id }, 2)
  local seen = wf.value(pid)
  check.equal(#seen, 3)
  local runs = {}
  for _, run in ipairs(seen) do
    check.equal({ run.pid, run.id, run.type, run.attempt }, { pid, id, "lua.support:wf.again", 1 })
    check.is_nil(runs[run.run])
    runs[run.run] = true
    check.equal(run.length, seen[1].length)
  end
end
