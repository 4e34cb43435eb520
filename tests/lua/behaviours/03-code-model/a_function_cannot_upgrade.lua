-- 3.1 A function may use everything a process may except `upgrade`.
local funcs = require("funcs")

return function()
  local value, err = funcs.call("lua.support:upgrades")
  check.is_nil(value)
  check.type_is(err, "userdata")
  check.matches(err, "upgrade")
end
