-- 12.1 `time.parse(layout, text[, loc])`: a text that names no zone is a wall clock reading at that location.
local time = require("time")

return function()
  local berlin = assert(time.load_location("Europe/Berlin"))
  local t = assert(time.parse(time.DATE_TIME, "2024-07-01 12:00:00", berlin))
  check.equal(t:utc():format_rfc3339(), "2024-07-01T10:00:00Z")
  check.equal(t:hour(), 12)
  local zoned = assert(time.parse(time.RFC3339, "2024-07-01T12:00:00Z", berlin))
  check.equal(zoned:utc():hour(), 12)
end
