-- 3.3 A string as the second value: failure of kind Internal with that message, not retryable (trap 15.2).
local funcs = require("funcs")

return function()
  local value, err = funcs.call("lua.support:returns", "text")
  check.is_nil(value)
  check.error_is(err, "Internal", "^went wrong$", false)
end
