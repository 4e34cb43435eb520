-- 12.1 `t:add(dur)` → Time, `t:sub(other)` → Duration.
local time = require("time")

return function()
  local t = time.unix(1000, 0)
  local later = t:add("1h")
  check.equal(later:unix(), 4600)
  check.equal(t:unix(), 1000, "a Time does not change")
  check.equal(later:sub(t):hours(), 1.0)
  check.equal(t:sub(later):seconds(), -3600.0)
  check.equal(t:add("-1ns"):unix_nano(), 999999999999)
end
