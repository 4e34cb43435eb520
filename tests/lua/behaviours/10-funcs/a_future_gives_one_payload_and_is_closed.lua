-- 10.4 `response()` and `channel()` are the same channel: one value, a Payload, then closed.
local funcs = require("funcs")

return function()
  local future = funcs.async("lua.support:fn.echo", { a = 1 })
  check.is_true(future:response() == future:channel())
  local payload, ok = future:channel():receive()
  check.is_true(ok)
  check.equal(payload:data(), { a = 1 })
  check.closed(future:channel())
end
