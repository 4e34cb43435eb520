-- 12.1 `time.utc` and `time.localtz` are Locations.
local time = require("time")

return function()
  check.type_is(time.utc, "userdata")
  check.type_is(time.localtz, "userdata")
  check.equal(time.utc:string(), "UTC")
  local t = time.date(2024, 1, 1, 0, 0, 0, 0, time.utc)
  check.equal(t:unix(), 1704067200)
  check.equal(time.now():location():string(), time.localtz:string())
end
