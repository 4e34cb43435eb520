-- 12.1 `time.unix(sec, ns)` → Time.
local time = require("time")

return function()
  local t = time.unix(1709618828, 9)
  check.equal(t:unix(), 1709618828)
  check.equal(t:unix_nano(), 1709618828000000009)
  check.equal(t:nanosecond(), 9)
  check.equal(t:utc():format_rfc3339(), "2024-03-05T06:07:08Z")
  check.equal(time.unix(1, 2500000000):unix_nano(), 3500000000)
  check.equal(time.unix(-1, 0):utc():format_rfc3339(), "1969-12-31T23:59:59Z")
end
