-- 9 A link with a function call works both ways.
-- imports: puppets=lua.support:puppets
return function()
  process.set_options{ trap_links = true }
  local pid = puppets.call()
  check.is_true((process.link(pid)))
  puppets.tell(pid, "fail", "no")
  local event = check.receive(process.events())
  check.equal({ event.kind, event.from }, { process.event.LINK_DOWN, pid })
  local called, future = puppets.call{ deaf = true }
  local puppet = puppets.new()
  puppets.ask(puppet, "link", called)
  puppets.tell(puppet, "fail", "no")
  check.error_is(check.receive(future:channel()), "Internal", "linked process failed")
end
