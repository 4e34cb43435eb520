-- 12.1 Trap 17: plain numbers in `time` are nanoseconds: `time.sleep(9000)` hardly sleeps.
local time = require("time")

return function()
  local before = time.now()
  time.sleep(9000)
  check.is_true(time.now():sub(before):seconds() < 5)
  check.equal(time.parse_duration(1500):nanoseconds(), 1500)
  check.equal(time.parse_duration(2 * time.SECOND):seconds(), 2)
end
