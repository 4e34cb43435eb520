-- 11.4 A workflow that asks another one to stop, which is not its child: that one gets a CANCEL event.
-- imports: wf=lua.support:wf.lib
return function()
  for _, verb in ipairs({ "cancel", "terminate" }) do
    local pid = wf.start("wf.wait")
    check.is_true(wf.value(wf.start("wf.stops", nil, verb, pid)))
    check.equal(wf.value(pid).kind, "pid.cancel")
  end
end
