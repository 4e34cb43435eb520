-- 7.4 `process.upgrade(nil, ...)` begins the same entry anew, with new arguments.
-- imports: puppets=lua.support:puppets
return function()
  local puppet, here = puppets.new(), process.listen("here")
  puppets.tell(puppet, "upgrade_to_the_same", process.pid(), { shows = true })
  check.equal(check.receive(here), puppet)
  check.equal(puppets.ask(puppet, "id"), "lua.support:puppet")
  puppets.watch(puppet)
  puppets.tell(puppet, "return", 1)
  check.equal(puppets.exit(puppet).value, 1)
end
