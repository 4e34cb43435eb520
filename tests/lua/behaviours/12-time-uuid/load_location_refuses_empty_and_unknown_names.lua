-- 12.1 `time.load_location`: `""` → `Invalid`; unknown → `NotFound`.
local time = require("time")

return function()
  check.fails(errors.INVALID, nil, time.load_location(""))
  check.fails(errors.NOT_FOUND, "Middle/Earth", time.load_location("Middle/Earth"))
end
