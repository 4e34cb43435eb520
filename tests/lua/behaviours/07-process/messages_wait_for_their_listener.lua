-- 8 A message waits until a listener of its topic or the inbox exists.
local time = require("time")

return function()
  local me = process.pid()
  process.send(me, "a", 1)
  process.send(me, "b", 2)
  process.send(me, "a", 3)
  time.sleep("5ms")
  local a = process.listen("a")
  check.equal(check.receive(a), 1)
  check.equal(check.receive(a), 3)
  local inbox = process.inbox()
  local rest = check.receive(inbox)
  check.equal(rest:topic(), "b")
  check.nothing(inbox, "10ms")
end
