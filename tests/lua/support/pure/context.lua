-- The context values it sees: of one key and its error as { value, kind, message, retryable }, or all of them.
local ctx = require("ctx")

return function(key)
  if key == nil then return ctx.all() end
  local value, err = ctx.get(key)
  if err then return { kind = err:kind(), message = err:message(), retryable = err:retryable() } end
  return { value = value }
end
