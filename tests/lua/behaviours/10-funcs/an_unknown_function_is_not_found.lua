-- 10.1 An unknown id: NotFound `no handler registered for target`, not retryable.
local funcs = require("funcs")

return function()
  local value, err = funcs.call("lua.support:fn.nobody")
  check.is_nil(value)
  check.error_is(err, "NotFound", "^no handler registered for target", false)
end
