-- 10.1 The callee's error arrives with kind, message, retryable and details.
local funcs = require("funcs")

return function()
  local _, err = funcs.call("lua.support:fn.fail", {
    message = "no such card", kind = "Conflict", retryable = true, details = { card = { last = "42" }, tries = 3 },
  })
  check.error_is(err, "Conflict", "^no such card$", true)
  check.equal(err:details(), { card = { last = "42" }, tries = 3 })
  local _, final = funcs.call("lua.support:fn.fail", { message = "m", kind = "Own", retryable = false })
  check.error_is(final, "Own", "^m$", false)
  check.is_nil(final:details())
end
