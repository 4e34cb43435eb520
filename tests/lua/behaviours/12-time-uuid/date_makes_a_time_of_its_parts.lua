-- 12.1 `time.date(y, mo, d, h, mi, s, ns[, loc])` → Time; default location local.
local time = require("time")

return function()
  local t = time.date(2024, time.MARCH, 5, 6, 7, 8, 9, time.utc)
  check.equal(t:unix_nano(), 1709618828000000009)
  check.equal(t:location():string(), "UTC")
  local there = time.date(2024, 3, 5, 6, 7, 8, 9, time.fixed_zone("X", 3600))
  check.equal(there:unix(), t:unix() - 3600)
  check.equal(time.date(2024, 3, 5, 6, 7, 8, 9):location():string(), time.localtz:string())
end
