-- 12.1 `timer:reset` raises on a bad value.
local time = require("time")

return function()
  local timer = time.timer("1h")
  check.raises(function() timer:reset("soon") end)
  check.raises(function() timer:reset(0) end)
  check.raises(function() timer:reset({}) end)
  check.is_true(timer:stop(), "it still runs")
end
