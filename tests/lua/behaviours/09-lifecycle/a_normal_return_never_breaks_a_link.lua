-- 9 A normal return never causes LINK_DOWN, and never kills.
-- imports: puppets=lua.support:puppets
return function()
  local puppet, other = puppets.new(), puppets.new{ trap = true }
  puppets.ask(puppet, "link", other)
  process.link(puppet)
  puppets.watch(puppet)
  puppets.tell(puppet, "return", 1)
  check.equal(puppets.exit(puppet).value, 1)
  check.equal(puppets.ask(other, "pid"), other)
  puppets.no_event()
  check.nothing(process.events(), "5ms")
  puppets.tell(other, "return")
end
