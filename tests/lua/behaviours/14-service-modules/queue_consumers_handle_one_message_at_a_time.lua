-- 14.7 `queue.consumer`: concurrency 1, so messages are handled one after the other, in order.
local funcs = require("funcs")

return function()
  local inbox = process.inbox()
  local function body(n) return { reply = process.pid(), topic = "n" .. n, wait_ms = 10 } end
  check.is_true(funcs.call("lua.support:services.publish", "lua.support:services.tasks", body(1), body(2), body(3)))
  local topics = {}
  for i = 1, 6 do topics[i] = check.receive(inbox):topic() end
  check.equal(topics, { "n1", "n1.end", "n2", "n2.end", "n3", "n3.end" })
end
