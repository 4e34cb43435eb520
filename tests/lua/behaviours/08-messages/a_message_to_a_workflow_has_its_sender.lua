-- 8 `m:from()` in a workflow: the PID of whoever sent it.
-- as: workflow
local funcs = require("funcs")

return function()
  process.send(process.pid(), "own", 1)
  local m = check.receive(process.inbox(), "60s")
  check.equal({ m:topic(), m:from(), m:payload():data() }, { "own", process.pid(), 1 })
  check.is_true(funcs.call("lua.support:tell", process.pid(), "from a function", 2))
  m = check.receive(process.inbox(), "60s")
  check.equal(m:topic(), "from a function")
  check.matches(m:from(), "lua%.support:tell#lua")
end
