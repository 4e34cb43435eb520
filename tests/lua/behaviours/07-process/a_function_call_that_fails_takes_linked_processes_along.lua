-- 9 A process that a function call has linked falls when the call fails.
-- imports: puppets=lua.support:puppets
return function()
  local pid = puppets.call()
  local child = puppets.ask(pid, "spawn_linked", "lua.support:collect", "lua.support:processes", 1)
  puppets.watch(child)
  puppets.tell(pid, "fail", "no")
  check.error_is(puppets.exit(child).error, "Internal", "linked process failed")
end
