-- 11.2 `parent_close_policy = "request_cancel"`: the child gets a CANCEL event when its parent ends.
return function()
  local parent = process.spawn("lua.support:wf.parent", "lua.support:worker", { parent_close_policy = "request-cancel" }, process.pid())
  local child = check.receive(process.listen("child"))
  process.monitor(child)
  process.send(parent, "over")
  local exit = check.receive(process.events())
  check.equal({ exit.from, exit.result.value.kind, exit.result.value.from }, { child, "pid.cancel", "{|topology}" })
end
