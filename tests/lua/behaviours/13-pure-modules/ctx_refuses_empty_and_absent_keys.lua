-- 13.2 `ctx.get`: `""` → `nil, Invalid`; absent → `nil, NotFound` (`key not found: k`, not retryable).
local ctx = require("ctx")

return function()
  check.fails(errors.INVALID, nil, ctx.get(""))
  local value, err = ctx.get("k")
  check.is_nil(value)
  check.error_is(err, errors.NOT_FOUND, "^key not found: k$", false)
end
