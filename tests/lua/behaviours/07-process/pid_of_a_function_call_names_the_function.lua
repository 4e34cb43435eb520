-- 5.1 The PID of a function call is `{[node@]<function ID>#lua.N|0x…}` and stays the same.
-- process: never, because it is about function calls
local time = require("time")

return function()
  local pid = process.pid()
  check.matches(pid, "^{[^|]*lua%.behaviours:07%-process%.pid_of_a_function_call_names_the_function#lua%.%d+|0x%x+}$")
  time.sleep("2ms")
  check.equal(process.pid(), pid)
end
