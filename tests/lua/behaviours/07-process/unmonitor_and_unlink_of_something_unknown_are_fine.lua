-- 9 `unmonitor` and `unlink` of something unknown give true.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  check.is_true((process.unmonitor(puppet)))
  check.is_true((process.unlink(puppet)))
  puppets.watch(puppet)
  puppets.tell(puppet, "return")
  puppets.exit(puppet)
  check.is_true((process.unmonitor(puppet)))
  check.is_true((process.unlink(puppet)))
end
