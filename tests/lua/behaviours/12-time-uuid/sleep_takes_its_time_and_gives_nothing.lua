-- 12.1 `time.sleep(dur)` waits for that long, never for less, and returns nothing.
local time = require("time")

return function()
  for _ = 1, 10 do
    local before = time.now()
    check.equal(select("#", time.sleep("3ms")), 0)
    check.is_true(time.now():sub(before):microseconds() >= 3000)
  end
end
