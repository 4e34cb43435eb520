-- 9 Without `trap_links` LINK_DOWN is not delivered: a unit that reads events is killed without seeing it.
-- imports: puppets=lua.support:puppets
return function()
  local puppet, reader = puppets.new(), puppets.new()
  puppets.ask(reader, "link", puppet)
  puppets.watch(reader)
  puppets.tell(puppet, "fail", "oops")
  check.error_is(puppets.exit(reader).error, "Internal", "linked process failed")
  puppets.no_event()
end
