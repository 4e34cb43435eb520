-- 10.1 A function that returns a value and a text has failed (3.3, trap 2): Internal, that text, not retryable.
local funcs = require("funcs")

return function()
  local value, err = funcs.call("lua.support:fn.text", "sorry")
  check.is_nil(value)
  check.error_is(err, "Internal", "^sorry$", false)
end
