-- 7.4 A lifecycle event that the old code had not read is there for the new code.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new{ deaf = true }
  process.cancel(puppet, "before")
  puppets.tell(puppet, "upgrade_to_the_same", process.pid())
  check.equal(puppets.event().reason, "before")
  puppets.tell(puppet, "return")
end
