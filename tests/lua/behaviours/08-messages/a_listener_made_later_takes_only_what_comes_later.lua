-- 8 Each message goes to the listener of its topic, else to the inbox: what the inbox has got is not moved.
return function()
  local inbox = process.inbox()
  process.send(process.pid(), "t", "before")
  check.equal(check.receive(inbox):payload():data(), "before")
  local listener = process.listen("t")
  process.send(process.pid(), "t", "after")
  check.equal(check.receive(listener), "after")
  check.nothing(inbox, "10ms")
end
