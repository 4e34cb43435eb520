-- 9 With `trap_links` the failure arrives as an event and goes no further.
-- imports: puppets=lua.support:puppets
return function()
  local a, b, c = puppets.new(), puppets.new{ trap = true }, puppets.new()
  puppets.ask(a, "link", b)
  puppets.ask(b, "link", c)
  puppets.tell(c, "fail", "at the far end")
  local event = puppets.event()
  check.equal({ event.kind, event.from }, { process.event.LINK_DOWN, c })
  check.matches(event.result.error, "at the far end")
  check.equal(puppets.ask(b, "pid"), b)
  check.equal(puppets.ask(a, "pid"), a)
  puppets.tell(a, "return")
  puppets.tell(b, "return")
end
