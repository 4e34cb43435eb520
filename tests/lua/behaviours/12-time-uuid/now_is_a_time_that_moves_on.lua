-- 12.1 `time.now()` is a Time of the present moment.
local time = require("time")

return function()
  local before = os.time()
  local now = time.now()
  check.type_is(now, "userdata")
  check.is_true(now:unix() >= before and now:unix() <= os.time())
  time.sleep("2ms")
  check.is_true(time.now():after(now))
end
