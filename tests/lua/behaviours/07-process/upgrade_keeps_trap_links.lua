-- 7.4 The links stay what they were: a process that traps still does after an upgrade.
-- imports: puppets=lua.support:puppets
return function()
  local puppet, other, here = puppets.new{ trap = true }, puppets.new(), process.listen("here")
  puppets.ask(puppet, "link", other)
  puppets.tell(puppet, "upgrade_to_the_same", process.pid(), { shows = true })
  check.receive(here)
  puppets.tell(other, "fail", "no")
  local event = puppets.event()
  check.equal({ event.kind, event.from }, { process.event.LINK_DOWN, other })
  puppets.tell(puppet, "return")
end
