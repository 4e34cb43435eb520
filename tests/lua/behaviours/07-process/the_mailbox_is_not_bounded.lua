-- 7.3 The mailbox of a process is not bounded: 10,000 unread messages are all there.
-- as: process
return function()
  local me, N = process.pid(), 10000
  for i = 1, N do
    if not process.send(me, "x", i) then check.fail("not taken: " .. i) end
  end
  local inbox = process.inbox()
  for i = 1, N do
    local got = inbox:receive():payload():data()
    if got ~= i then check.equal(got, i) end
  end
  check.nothing(inbox, "5ms")
end
