-- 12.1 `t:after(o) t:before(o) t:equal(o)` compare instants, wherever they are shown.
local time = require("time")

return function()
  local a, b = time.unix(10, 0), time.unix(10, 1)
  check.is_true(b:after(a))
  check.is_false(a:after(b))
  check.is_false(a:after(a))
  check.is_true(a:before(b))
  check.is_false(a:before(a))
  check.is_true(a:equal(time.unix(10, 0)))
  check.is_true(a:equal(a:in_location(time.fixed_zone("X", 3600))))
  check.is_false(a:equal(b))
end
