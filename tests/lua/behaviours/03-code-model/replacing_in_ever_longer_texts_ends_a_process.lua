-- 3.1 Units take turns: one whose calls into the string library take ever longer ends before the others wait for it.
local time = require("time")

return function()
  local began = time.now()
  check.fails("Internal", "ran 10000000 instructions in one step without waiting", process.exec("lua.support:doubling", "lua.support:processes"))
  check.is_true(time.now():sub(began):seconds() < 3)
end
