-- 12.1 `time.load_location(name)` → Location, with its daylight saving.
local time = require("time")

return function()
  local place = assert(time.load_location("America/New_York"))
  check.type_is(place, "userdata")
  check.equal(place:string(), "America/New_York")
  check.equal(tostring(place), "America/New_York")
  check.equal(time.unix(1704110400, 0):in_location(place):format_rfc3339(), "2024-01-01T07:00:00-05:00")
  check.equal(time.unix(1719835200, 0):in_location(place):format_rfc3339(), "2024-07-01T08:00:00-04:00")
  check.equal(time.load_location("UTC"):string(), "UTC")
end
