-- 9 EXIT is delivered once per monitor, to each unit that monitors.
-- imports: puppets=lua.support:puppets
return function()
  local puppet, one, other = puppets.new(), puppets.new(), puppets.new()
  puppets.watch(puppet)
  puppets.ask(one, "monitor", puppet)
  puppets.ask(other, "monitor", puppet)
  puppets.tell(puppet, "return", "bye")
  check.equal(puppets.exit(puppet).value, "bye")
  for _ = 1, 2 do
    local event = puppets.event()
    check.equal({ event.kind, event.from, event.result.value }, { process.event.EXIT, puppet, "bye" })
  end
  puppets.no_event()
  check.nothing(process.events(), "5ms")
  puppets.tell(one, "return")
  puppets.tell(other, "return")
end
