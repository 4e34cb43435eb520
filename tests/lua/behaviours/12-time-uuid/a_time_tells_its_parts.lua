-- 12.1 `date()` → y, m, d; `clock()` → h, m, s; `year month day hour minute second nanosecond weekday year_day`.
local time = require("time")

return function()
  local t = time.date(2024, 3, 5, 6, 7, 8, 9, time.fixed_zone("X", 7200))
  check.equal({ t:date() }, { 2024, 3, 5 })
  check.equal({ t:clock() }, { 6, 7, 8 })
  check.equal({ t:year(), t:month(), t:day() }, { 2024, 3, 5 })
  check.equal({ t:hour(), t:minute(), t:second(), t:nanosecond() }, { 6, 7, 8, 9 })
  check.equal(t:weekday(), time.TUESDAY)
  check.equal(t:year_day(), 65)
  check.type_is(t:year(), "integer")
end
