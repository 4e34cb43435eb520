-- 3.1 Units take turns: one that has the string library go through a long text for ever ends before the others wait for it.
local time = require("time")

return function()
  local began = time.now()
  check.fails("Internal", "ran 10000000 instructions in one step without waiting", process.exec("lua.support:shouting", "lua.support:processes"))
  check.is_true(time.now():sub(began):seconds() < 3)
end
