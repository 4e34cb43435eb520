-- 9 An `unmonitor` before the end means no EXIT.
-- imports: puppets=lua.support:puppets
return function()
  local puppet, other = puppets.new(), puppets.new()
  puppets.watch(puppet)
  check.is_true((process.unmonitor(puppet)))
  puppets.watch(other)
  puppets.tell(puppet, "return")
  check.eventually(function() return not process.send(puppet, "x") end)
  puppets.tell(other, "return")
  puppets.exit(other)
  check.nothing(process.events(), "20ms")
end
