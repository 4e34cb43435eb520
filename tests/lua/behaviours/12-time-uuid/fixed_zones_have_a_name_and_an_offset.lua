-- 12.1 `time.fixed_zone(name, seconds)` → Location.
local time = require("time")

return function()
  local zone = time.fixed_zone("HERE", -9000)
  check.equal(zone:string(), "HERE")
  local t = time.unix(0, 0):in_location(zone)
  check.equal(t:format("2006-01-02 15:04 -0700 MST"), "1969-12-31 21:30 -0230 HERE")
end
