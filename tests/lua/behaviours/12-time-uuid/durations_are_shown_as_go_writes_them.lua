-- 12.1 `tostring` of a Duration is in Go form.
local time = require("time")

return function()
  local function shown(x) return tostring(time.parse_duration(x)) end
  check.equal(shown("1h30m45s"), "1h30m45s")
  check.equal(shown("90m"), "1h30m0s")
  check.equal(shown("1500ms"), "1.5s")
  check.equal(shown(1500000), "1.5ms")
  check.equal(shown("-2s"), "-2s")
  check.equal(shown(0), "0s")
end
