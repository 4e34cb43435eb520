-- 12.1 Months `JANUARY`…`DECEMBER` = 1…12, days `SUNDAY`…`SATURDAY` = 0…6.
local time = require("time")

return function()
  for i, name in ipairs{
    "JANUARY", "FEBRUARY", "MARCH", "APRIL", "MAY", "JUNE", "JULY", "AUGUST", "SEPTEMBER", "OCTOBER", "NOVEMBER",
    "DECEMBER",
  } do
    check.equal(time[name], i, name)
  end
  for i, name in ipairs{ "SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY" } do
    check.equal(time[name], i - 1, name)
  end
  local t = time.date(2024, 12, 25, 0, 0, 0, 0, time.utc)
  check.equal(t:month(), time.DECEMBER)
  check.equal(t:weekday(), time.WEDNESDAY)
end
