-- 9 Function calls can be cancelled like processes: they get the CANCEL event, with reason and canceller.
-- imports: puppets=lua.support:puppets
return function()
  local pid, future = puppets.call()
  check.is_true((process.cancel(pid, "enough")))
  local event = puppets.event()
  check.equal({ event.kind, event.from, event.reason }, { process.event.CANCEL, process.pid(), "enough" })
  check.is_false(future:is_complete())
  puppets.tell(pid, "return")
end
