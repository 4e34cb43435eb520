-- 12.1 Duration: `nanoseconds() microseconds() milliseconds()` → integers; `seconds() minutes() hours()` → floats.
local time = require("time")

return function()
  local d = time.parse_duration("1h30m")
  check.equal(check.type_is(d:nanoseconds(), "integer"), 5400000000000)
  check.equal(check.type_is(d:microseconds(), "integer"), 5400000000)
  check.equal(check.type_is(d:milliseconds(), "integer"), 5400000)
  check.equal(check.type_is(d:seconds(), "float"), 5400.0)
  check.equal(check.type_is(d:minutes(), "float"), 90.0)
  check.equal(check.type_is(d:hours(), "float"), 1.5)
  check.equal(time.parse_duration("1999us"):milliseconds(), 1)
end
