-- 12.1 `t:add_date(y, m, d)` → Time.
local time = require("time")

return function()
  local t = time.date(2024, 1, 31, 12, 0, 0, 0, time.utc)
  check.equal(t:add_date(1, 0, 0):format(time.DATE_ONLY), "2025-01-31")
  check.equal(t:add_date(0, 2, 1):format(time.DATE_ONLY), "2024-04-01")
  check.equal(t:add_date(0, 0, -31):format(time.DATE_TIME), "2023-12-31 12:00:00")
end
