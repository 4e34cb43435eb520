-- 10.4 If the call failed the value is an Error, with `ok == true`; then the channel is closed (trap 5).
local funcs = require("funcs")

return function()
  local future = funcs.async("lua.support:fn.fail", { message = "no", kind = "Conflict", details = { a = 1 } })
  local failure, ok = future:channel():receive()
  check.is_true(ok)
  check.error_is(failure, "Conflict", "^no$", "unsaid")
  check.equal(failure:details(), { a = 1 })
  check.closed(future:channel())
end
