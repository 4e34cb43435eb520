-- 9 LINK_DOWN kills whatever the unit is waiting for.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  local sleeper = puppets.ask(puppet, "spawn_linked", "lua.support:collect", "lua.support:processes", 1, "1h")
  puppets.watch(sleeper)
  puppets.tell(puppet, "fail", "oops")
  check.error_is(puppets.exit(sleeper).error, "Internal", "linked process failed")
end
