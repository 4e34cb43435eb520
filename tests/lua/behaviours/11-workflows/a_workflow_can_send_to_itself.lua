-- 11.4 A workflow is addressed by its PID like any other, also by itself.
-- as: workflow
return function()
  local inbox = process.inbox()
  check.is_true(process.send(process.pid(), "note", { 1 }))
  local m = check.receive(inbox, "20s")
  check.equal({ m:topic(), m:from(), m:payload():data() }, { "note", process.pid(), { 1 } })
end
