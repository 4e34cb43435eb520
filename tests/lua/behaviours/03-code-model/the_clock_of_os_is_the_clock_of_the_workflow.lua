-- 3.2 In a workflow `os.time()` and `os.date()` follow the workflow clock.
-- as: workflow
local time = require("time")

return function()
  check.equal(os.time(), time.now():unix())
  local before = os.time()
  time.sleep("1100ms")
  check.equal(os.time(), time.now():unix())
  check.is_true(os.time() > before)
  check.equal(os.date("!%Y-%m-%d %H:%M:%S"), time.now():utc():format(time.DATE_TIME))
end
