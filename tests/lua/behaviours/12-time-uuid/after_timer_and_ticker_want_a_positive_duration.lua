-- 12.1 after/timer/ticker with a duration ≤ 0 or unreadable → `nil, Invalid` (`time.X: duration must be > 0`).
local time = require("time")

return function()
  for _, name in ipairs{ "after", "timer", "ticker" } do
    for _, bad in ipairs{ 0, -1, "0s", "-1s", "soon", "" } do
      local err = check.fails(errors.INVALID, nil, time[name](bad))
      check.equal(err:message(), "time." .. name .. ": duration must be > 0")
    end
  end
end
