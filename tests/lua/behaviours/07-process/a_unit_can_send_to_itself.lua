-- 7.3 A unit may send to its own PID and finds the messages in its inbox.
return function()
  check.is_true((process.send(process.pid(), "a", 1)))
  check.is_true((process.send(process.pid(), "b", 2)))
  local inbox = process.inbox()
  local one, two = check.receive(inbox), check.receive(inbox)
  check.equal(one:topic() .. two:topic(), "ab")
  check.equal(one:from(), process.pid())
end
