-- 15 EXIT is for monitors, LINK_DOWN is for links (trap 8).
-- imports: puppets=lua.support:puppets
return function()
  local puppet, monitors, linked = puppets.new(), puppets.new(), puppets.new{ trap = true }
  puppets.ask(monitors, "monitor", puppet)
  puppets.ask(linked, "link", puppet)
  puppets.tell(puppet, "fail", "no")
  local kinds = {}
  for _ = 1, 2 do kinds[#kinds + 1] = puppets.event().kind end
  table.sort(kinds)
  check.equal(kinds, { "pid.exit", "pid.link.down" })
  puppets.no_event()
  puppets.tell(monitors, "return")
  puppets.tell(linked, "return")
end
