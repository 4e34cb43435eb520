-- 7.1 What counts is `trap_links` when the peer fails.
-- imports: puppets=lua.support:puppets
return function()
  local unit, one, other = puppets.new(), puppets.new(), puppets.new()
  puppets.ask(unit, "link", one)
  puppets.ask(unit, "link", other)
  puppets.ask(unit, "set_options", { trap_links = true })
  puppets.tell(one, "fail", "no")
  check.equal(puppets.event().kind, process.event.LINK_DOWN)
  puppets.watch(unit)
  puppets.ask(unit, "set_options", { trap_links = false })
  puppets.tell(other, "fail", "no")
  check.error_is(puppets.exit(unit).error, "Internal", "linked process failed")
end
