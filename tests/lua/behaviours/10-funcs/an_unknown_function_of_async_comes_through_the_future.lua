-- 10.1 For `async` the NotFound of an unknown id comes through the future.
local funcs = require("funcs")

return function()
  local future, err = funcs.async("lua.support:fn.nobody")
  check.is_nil(err)
  local failure = check.receive(future:channel())
  check.error_is(failure, "NotFound", "^no handler registered for target", false)
end
