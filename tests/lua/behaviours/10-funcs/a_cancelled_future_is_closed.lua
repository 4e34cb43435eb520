-- 10.4 `cancel()` gives true, nil; the channel is closed, `is_canceled()` true, the result Canceled, `canceled` (trap 5).
local funcs = require("funcs")

return function()
  local future = funcs.async("lua.support:fn.sleep", "10s")
  local ok, err = future:cancel()
  check.is_true(ok)
  check.is_nil(err)
  check.closed(future:channel())
  check.is_true(future:is_canceled())
  check.fails("Canceled", "^canceled$", future:result())
end
