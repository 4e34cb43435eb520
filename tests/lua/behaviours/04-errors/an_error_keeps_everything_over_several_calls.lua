-- 4 An Error keeps kind, message, retryable and details on its way through units.
local funcs = require("funcs")

return function()
  local fields = { message = "slow down", kind = errors.RATE_LIMITED, retryable = true, details = { after = 2, by = { "a" } } }
  local _, first = funcs.call("lua.support:fails", fields)
  check.error_is(first, "RateLimited", "^slow down$", true)
  check.equal(first:details(), { after = 2, by = { "a" } })
  local again = funcs.call("lua.support:echo", first)
  check.error_is(again, "RateLimited", "^slow down$", true)
  check.equal(again:details(), { after = 2, by = { "a" } })
end
