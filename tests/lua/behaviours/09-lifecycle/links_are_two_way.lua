-- 9 A link is two-way: whichever end fails, the other one falls.
-- imports: puppets=lua.support:puppets
return function()
  local parent = puppets.new()
  local child = puppets.ask(parent, "spawn_linked", "lua.support:puppet", "lua.support:processes", process.pid())
  puppets.watch(child)
  puppets.tell(parent, "fail", "from above")
  check.error_is(puppets.exit(child).error, "Internal", "linked process failed")
  parent = puppets.new()
  child = puppets.ask(parent, "spawn_linked", "lua.support:puppet", "lua.support:processes", process.pid())
  puppets.watch(parent)
  puppets.tell(child, "fail", "from below")
  check.error_is(puppets.exit(parent).error, "Internal", "linked process failed")
end
