-- 11.4 A send from a workflow to a process is a recorded side effect: done once, in order.
-- imports: wf=lua.support:wf.lib
return function()
  local inbox, messages = process.inbox(), {}
  for i = 1, 20 do messages[i] = { "n", i } end
  local pid = wf.start("wf.tell", nil, process.pid(), messages)
  for i = 1, 20 do check.equal(check.receive(inbox):payload():data(), i) end
  check.equal(wf.value(pid)[20], true)
  check.nothing(inbox)
end
