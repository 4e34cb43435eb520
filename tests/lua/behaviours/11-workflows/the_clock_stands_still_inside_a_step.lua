-- 11.4 `time.now()` and `os.time()` are the time of the step: they do not move while code runs, but with what it waits for.
-- as: workflow
local time, funcs = require("time"), require("funcs")

return function()
  local before, seconds = time.now(), os.time()
  local sum = 0
  for i = 1, 200000 do sum = sum + i end
  check.is_true(time.now():equal(before))
  check.equal(os.time(), seconds)
  check.equal(before:unix(), seconds)
  time.sleep("20ms")
  check.is_true(time.now():sub(before):milliseconds() >= 20)
  check.equal(os.time(), time.now():unix())
  check.equal(os.date("!%Y-%m-%dT%H:%M:%SZ"), time.now():utc():format("2006-01-02T15:04:05Z"))
  local later = time.now()
  check.equal(funcs.call("lua.support:fn.echo", later:unix_nano()), later:unix_nano())
end
