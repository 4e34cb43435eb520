-- 7.3 `process.unlisten(ch)`: true; closes `ch`, later messages of the topic go to the inbox.
return function()
  local ch, inbox = process.listen("t"), process.inbox()
  check.is_true(process.unlisten(ch))
  check.closed(ch)
  process.send(process.pid(), "t", "later")
  check.equal(check.receive(inbox):payload():data(), "later")
end
