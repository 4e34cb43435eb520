-- 11.4 In a workflow `terminate` acts like `cancel`: the child gets a CANCEL event and decides what comes of it.
-- as: workflow
-- imports: wf=lua.support:wf.lib
return function()
  for _, verb in ipairs({ "cancel", "terminate" }) do
    local pid = process.spawn("lua.support:wf.wait", "lua.support:worker")
    check.is_true(process[verb](pid))
    local event = wf.value(pid)
    check.equal({ event.kind, event.from }, { "pid.cancel", "{|topology}" })
  end
end
