-- 11.4 A send to a workflow is a recorded signal: it arrives once, in order, with the sender's PID.
-- as: workflow
-- imports: wf=lua.support:wf.lib
return function()
  local pid = process.spawn("lua.support:wf.collect", "lua.support:worker", 10)
  for i = 1, 10 do check.is_true(process.send(pid, "n", i)) end
  for i, m in ipairs(wf.value(pid)) do
    check.equal({ m.topic, m.value, m.from }, { "n", i, process.pid() })
  end
end
