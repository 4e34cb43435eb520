-- 15 Without `trap_links` a failed peer kills even a unit that never calls `events()` (trap 9).
-- imports: puppets=lua.support:puppets
return function()
  local puppet, deaf = puppets.new(), puppets.new{ deaf = true }
  puppets.ask(deaf, "link", puppet)
  puppets.watch(deaf)
  puppets.tell(puppet, "fail", "oops")
  local result = puppets.exit(deaf)
  check.is_nil(result.value)
  check.error_is(result.error, "Internal", "linked process failed")
end
