-- 6.4 A unit whose coroutines all wait on channels just stays idle.
local time = require("time")

return function()
  local pid = process.spawn_monitored("lua.support:idles_on_its_inbox", "lua.support:processes")
  check.nothing(process.events(), "100ms")
  check.is_true(process.send(pid, "wake", "up"))
  check.equal(check.receive(process.events()).result.value, "up")
end
