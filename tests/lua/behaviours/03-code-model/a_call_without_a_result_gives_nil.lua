-- 3.3 The first value is the result: none is nil, and false stays false.
local funcs = require("funcs")

return function()
  local value, err = funcs.call("lua.support:echo")
  check.is_nil(value)
  check.is_nil(err)
  value, err = funcs.call("lua.support:echo", false)
  check.is_false(value)
  check.is_nil(err)
end
