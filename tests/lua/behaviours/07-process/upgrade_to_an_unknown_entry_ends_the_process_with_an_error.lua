-- 7.2 An entry that nobody knows has no factory: a process that upgrades to it fails with `NotFound`.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  puppets.watch(puppet)
  puppets.tell(puppet, "upgrade", "lua.support:nothing")
  check.error_is(puppets.exit(puppet).error, "NotFound", "factory not found")
end
