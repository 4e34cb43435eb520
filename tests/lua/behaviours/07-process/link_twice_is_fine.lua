-- 9 `link` twice gives true, and LINK_DOWN comes once.
-- imports: puppets=lua.support:puppets
return function()
  process.set_options{ trap_links = true }
  local puppet = puppets.new()
  check.is_true((process.link(puppet)))
  check.is_true((process.link(puppet)))
  puppets.tell(puppet, "fail", "no")
  check.equal(check.receive(process.events()).kind, process.event.LINK_DOWN)
  check.nothing(process.events(), "20ms")
end
