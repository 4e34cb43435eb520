-- 12.1 `time.parse(layout, text)` → Time; layouts are in Go's reference-time style.
local time = require("time")

return function()
  local function unix(layout, text) return assert(time.parse(layout, text)):unix() end
  check.equal(unix(time.RFC3339, "2024-03-05T06:07:08Z"), 1709618828)
  check.equal(unix(time.RFC3339, "2024-03-05T07:07:08+01:00"), 1709618828)
  check.equal(unix(time.DATE_TIME, "2024-03-05 06:07:08"), 1709618828)
  check.equal(unix(time.DATE_ONLY, "1970-01-02"), 86400)
  check.equal(unix("02.01.2006 15h04", "05.03.2024 06h07"), 1709618820)
  check.equal(time.parse(time.RFC3339NANO, "2024-03-05T06:07:08.000000009Z"):nanosecond(), 9)
end
