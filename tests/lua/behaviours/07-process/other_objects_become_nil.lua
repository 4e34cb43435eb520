-- 3.4 Other objects become nil; a field that holds one disappears.
local time = require("time")

return function()
  local me, inbox = process.pid(), process.inbox()
  process.send(me, "x", { a = 1, when = time.now(), ch = channel.new(), dur = time.parse_duration("1s") })
  check.equal(check.receive(inbox):payload():data(), { a = 1 })
  process.send(me, "x", time.now())
  local payload = check.receive(inbox):payload()
  check.is_nil(payload and payload:data())
end
