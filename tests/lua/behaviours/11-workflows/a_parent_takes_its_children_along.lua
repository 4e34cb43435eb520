-- 11.2 `parent_close_policy` is `terminate` if not said: a child that runs when its parent ends is terminated.
return function()
  local parent = process.spawn("lua.support:wf.parent", "lua.support:worker", {}, process.pid())
  local child = check.receive(process.listen("child"))
  process.monitor(child)
  process.send(parent, "over")
  local exit = check.receive(process.events())
  check.equal(exit.from, child)
  check.error_is(exit.result.error, "Canceled", "^workflow terminated$")
end
