-- 11.2 `parent_close_policy = "abandon"`: the child goes on without its parent.
return function()
  local parent = process.spawn_monitored("lua.support:wf.parent", "lua.support:worker", { parent_close_policy = "ABANDON" }, process.pid())
  local child = check.receive(process.listen("child"))
  process.send(parent, "over")
  check.equal(check.receive(process.events()).from, parent)
  process.monitor(child)
  process.send(child, "done", "alive")
  check.equal(check.receive(process.events()).result.value, "alive")
end
