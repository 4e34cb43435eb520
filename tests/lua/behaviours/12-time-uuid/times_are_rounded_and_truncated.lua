-- 12.1 `t:round(Duration)`, `t:truncate(Duration)`.
local time = require("time")

return function()
  local t = time.date(2024, 3, 5, 6, 30, 45, 600000000, time.utc)
  local function at(method, text) return t[method](t, time.parse_duration(text)):format("15:04:05.999") end
  check.equal(at("truncate", "1s"), "06:30:45")
  check.equal(at("round", "1s"), "06:30:46")
  check.equal(at("truncate", "1h"), "06:00:00")
  check.equal(at("round", "1h"), "07:00:00")
  check.equal(at("round", "100ms"), "06:30:45.6")
end
