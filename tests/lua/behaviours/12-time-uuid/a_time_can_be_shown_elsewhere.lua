-- 12.1 `in_location(loc)`, `location()`, `utc()`, `in_local()`: the same instant on another clock.
local time = require("time")

return function()
  local zone = time.fixed_zone("X", 3600)
  local t = time.unix(1709618828, 0):utc()
  local there = t:in_location(zone)
  check.equal(there:hour(), t:hour() + 1)
  check.equal(there:unix(), t:unix())
  check.equal(there:location():string(), "X")
  check.equal(t:location():string(), "UTC")
  check.equal(there:utc():format_rfc3339(), t:format_rfc3339())
  check.equal(there:in_local():location():string(), time.localtz:string())
  check.is_true(there:in_local():equal(t))
end
