-- 11.4 In a workflow `time.now()` and `os.time()` are the time of the current step, from history.
-- as: workflow
local time, funcs = require("time"), require("funcs")

return function()
  local first = time.now()
  for _ = 1, 20000 do end
  check.is_true(time.now():equal(first))
  check.equal(os.time(), first:unix())
  check.equal(os.date("!%Y-%m-%dT%H:%M:%SZ"), first:utc():format_rfc3339())
  -- What the callee was told is recorded: a replay with another clock would differ from it.
  check.equal(funcs.call("lua.support:pure.echo", first:unix_nano()), first:unix_nano())
  time.sleep("20ms")
  check.is_true(time.now():sub(first):milliseconds() >= 20)
  local woken = time.now():unix_nano()
  check.equal(funcs.call("lua.support:pure.echo", woken), woken)
  check.is_true(time.now():unix_nano() > woken)
end
