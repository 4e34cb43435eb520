-- 15 Trap 17: plain numbers mean ns, ms or s depending on the module.
local time, funcs, store = require("time"), require("funcs"), require("store")

return function()
  local before = time.now()
  time.sleep(1000) -- nanoseconds
  check.is_true(time.now():sub(before):milliseconds() < 1000)

  before = time.now() -- milliseconds
  local with = funcs.new():with_options{ retry = { max_attempts = 2, initial_delay = 20, jitter = 0 } }
  check.fails(errors.UNAVAILABLE, nil, with:call("lua.support:pure.unavailable"))
  local waited_ms = time.now():sub(before):milliseconds()
  check.is_true(waited_ms >= 20 and waited_ms < 5000)

  local s, key = store.get("lua.support:services.memory"), check.unique("key") -- seconds
  s:set(key, 1, 20)
  time.sleep("30ms")
  check.equal(s:get(key), 1)
end
