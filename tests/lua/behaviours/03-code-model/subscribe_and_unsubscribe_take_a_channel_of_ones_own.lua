-- 3.2 Globals `subscribe(topic, ch)` and `unsubscribe(ch)`.
return function()
  local mine = channel.new(4)
  subscribe("news", mine)
  process.send(process.pid(), "news", "first")
  check.equal(check.receive(mine), "first")
  unsubscribe(mine)
  process.send(process.pid(), "news", "second")
  check.equal(check.receive(process.inbox()):payload():data(), "second")
end
