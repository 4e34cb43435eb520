-- 12.1 `time.sleep` of a bad value → `nil, Invalid`.
local time = require("time")

return function()
  check.fails(errors.INVALID, nil, time.sleep("soon"))
  check.fails(errors.INVALID, nil, time.sleep(""))
  check.fails(errors.INVALID, nil, time.sleep("10"))
end
