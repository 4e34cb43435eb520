-- 12.2 A v7 is ordered by its time.
local uuid, time = require("uuid"), require("time")

return function()
  local first = uuid.v7()
  time.sleep("2ms")
  check.is_true(first < uuid.v7())
end
