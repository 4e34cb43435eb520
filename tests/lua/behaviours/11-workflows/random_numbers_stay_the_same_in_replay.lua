-- 11.1 `math.random` comes from the run's seed: after a replay the code sees the same numbers.
-- as: workflow
local funcs, time = require("funcs"), require("time")

return function()
  local first = { math.random(1, 2 ^ 40), math.random() }
  local recorded = funcs.call("lua.support:fn.echo", first)
  time.sleep("10ms")
  local second = math.random(1, 2 ^ 40)
  check.equal(funcs.call("lua.support:fn.echo", second), second)
  check.equal(recorded, first)
end
