-- 9 Units linked in a ring all fall, each with one EXIT.
-- imports: puppets=lua.support:puppets
return function()
  local ring, open = {}, {}
  for i = 1, 4 do
    ring[i] = puppets.new()
    open[ring[i]] = true
    puppets.watch(ring[i])
  end
  for i = 1, 4 do puppets.ask(ring[i], "link", ring[i % 4 + 1]) end
  puppets.tell(ring[2], "fail", "no")
  for _ = 1, 4 do
    local event = check.receive(process.events())
    check.is_true(open[event.from])
    open[event.from] = nil
    check.matches(event.result.error, event.from == ring[2] and "^no$" or "linked process failed")
  end
  check.nothing(process.events(), "20ms")
end
