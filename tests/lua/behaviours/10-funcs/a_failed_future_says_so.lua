-- 10.4 Failed: `result()` is nil, err and `error()` err, true.
local funcs = require("funcs")

return function()
  local future = funcs.async("lua.support:fn.fail", { message = "no", kind = "Conflict" })
  check.receive(future:channel())
  check.is_true(future:is_complete())
  check.is_false(future:is_canceled())
  check.error_is(check.fails("Conflict", "^no$", future:result()), "Conflict")
  local failure, failed = future:error()
  check.is_true(failed)
  check.error_is(failure, "Conflict", "^no$")
end
