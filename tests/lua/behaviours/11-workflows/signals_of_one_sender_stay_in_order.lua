-- 11.8 Signals are kept in order per sender, and none is lost while nobody reads.
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.collect", { start_delay = "30ms" }, 200)
  for i = 1, 200 do check.is_true(process.send(pid, i % 3 == 0 and "a" or "b", i)) end
  for i, m in ipairs(wf.value(pid)) do
    check.equal({ m.topic, m.value, m.from }, { i % 3 == 0 and "a" or "b", i, process.pid() })
  end
end
