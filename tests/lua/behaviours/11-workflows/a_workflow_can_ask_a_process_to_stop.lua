-- 11.4 `cancel` and `terminate` in a workflow are requests, to processes too: they get a CANCEL event.
-- imports: wf=lua.support:wf.lib
return function()
  for _, verb in ipairs({ "cancel", "terminate" }) do
    local pid = process.spawn("lua.support:wf.stops", "lua.support:worker", verb, process.pid())
    local event = check.receive(process.events())
    check.equal({ event.kind, event.from }, { "pid.cancel", pid })
    check.type_is(event.at, "number")
  end
end
