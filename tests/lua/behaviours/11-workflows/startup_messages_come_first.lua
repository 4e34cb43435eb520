-- 11.3 Startup messages come before any other signal, in order; their sender is the spawner (7.2).
-- imports: wf=lua.support:wf.lib
return function()
  local spawner = process.with_context({}):with_message("one", 1):with_message("two", 2):with_message("three", { 3 })
  local pid = spawner:spawn_monitored("lua.support:wf.collect", wf.worker, 4)
  process.send(pid, "later", 4)
  local topics, values = {}, {}
  for i, m in ipairs(wf.value(pid)) do
    topics[i], values[i] = m.topic, m.value
    check.equal(m.from, process.pid())
  end
  check.equal(topics, { "one", "two", "three", "later" })
  check.equal(values, { 1, 2, { 3 }, 4 })
end
