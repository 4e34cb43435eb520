-- 11.10 The example: a signal is answered and an activity called, or the limit ends it.
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("approval")
  local pid = wf.start("wf.approval", { id = id }, { item = 1 }, "24h")
  local answers = process.listen("ok")
  process.send(pid, "approve")
  check.equal(check.receive(answers), { id = id })
  check.equal(wf.value(pid), { state = "paid", receipt = { item = 1 } })
  check.equal(wf.value(wf.start("wf.approval", nil, {}, "20ms")), { state = "expired" })
end
