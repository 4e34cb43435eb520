-- 14.7 `queue.consumer` with `concurrency` 2.
local funcs = require("funcs")

return function()
  local inbox = process.inbox()
  local function body(n) return { reply = process.pid(), topic = "n" .. n, wait_ms = 60 } end
  check.is_true(funcs.call("lua.support:services.publish", "lua.support:services.wide", body(1), body(2), body(3)))
  local running, most = 0, 0
  for _ = 1, 6 do
    running = running + (check.receive(inbox):topic():find("%.end$") and -1 or 1)
    most = math.max(most, running)
  end
  check.equal(most, 2)
end
