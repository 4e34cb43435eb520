-- 5.1 Function call: `{[node@]<function ID>#lua.N|0x…}`.
local funcs = require("funcs")

return function()
  local host, unique = funcs.call("lua.support:pid"):match("^{(.-)|(.-)}$")
  check.matches(host, "lua%.support:pid#lua%.%d+$")
  check.matches(unique, "^0x%x+$")
end
