-- 12.1 `sleep(0)` and negative values return at once.
local time = require("time")

return function()
  local before = time.now()
  check.equal(select("#", time.sleep(0)), 0)
  check.equal(select("#", time.sleep(-1)), 0)
  check.equal(select("#", time.sleep("-1h")), 0)
  check.is_true(time.now():sub(before):milliseconds() < 1000)
end
