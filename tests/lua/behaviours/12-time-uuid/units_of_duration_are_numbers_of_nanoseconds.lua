-- 12.1 `NANOSECOND MICROSECOND MILLISECOND SECOND MINUTE HOUR` are ns counts as numbers.
local time = require("time")

return function()
  check.equal(time.NANOSECOND, 1)
  check.equal(time.MICROSECOND, 1e3)
  check.equal(time.MILLISECOND, 1e6)
  check.equal(time.SECOND, 1e9)
  check.equal(time.MINUTE, 60e9)
  check.equal(time.HOUR, 3600e9)
  check.type_is(time.HOUR, "number")
end
