-- 8 Events are not lost: a CANCEL that came before `events()` was called is there.
local time = require("time")

return function()
  check.is_true((process.cancel(process.pid(), "early")))
  time.sleep("2ms")
  local event = check.receive(process.events())
  check.equal(event.kind, process.event.CANCEL)
  check.equal(event.reason, "early")
  check.equal(event.from, process.pid())
end
