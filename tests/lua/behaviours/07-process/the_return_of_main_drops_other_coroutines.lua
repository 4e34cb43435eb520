-- 3.1 When the main function returns, the unit ends and its other coroutines are dropped.
-- imports: puppets=lua.support:puppets
local funcs = require("funcs")

return function()
  local alive = process.listen("alive")
  local pid = process.spawn_monitored("lua.support:coroutines", "lua.support:processes", "tell", process.pid(), true)
  check.equal(puppets.exit(pid).value, "main has returned")
  check.equal(funcs.call("lua.support:coroutines_call", "tell", process.pid(), true), "main has returned")
  check.nothing(alive, "60ms")
end
