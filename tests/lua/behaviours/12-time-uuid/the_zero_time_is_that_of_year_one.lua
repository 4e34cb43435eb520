-- 12.1 `t:is_zero()`.
local time = require("time")

return function()
  check.is_true(time.date(1, 1, 1, 0, 0, 0, 0, time.utc):is_zero())
  check.is_false(time.unix(0, 0):is_zero())
  check.is_false(time.now():is_zero())
end
