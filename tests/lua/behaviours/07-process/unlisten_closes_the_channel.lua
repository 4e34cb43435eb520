-- 7.3 `process.unlisten` gives true and closes the channel; later messages of the topic go to the inbox.
return function()
  local me, ch, inbox = process.pid(), process.listen("x"), process.inbox()
  process.send(me, "x", 1)
  check.equal(check.receive(ch), 1)
  check.is_true(process.unlisten(ch))
  check.closed(ch)
  process.send(me, "x", 2)
  check.equal(check.receive(inbox):payload():data(), 2)
end
