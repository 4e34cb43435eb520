-- 10.1 Kind, message, retryable and details are the same after any number of calls.
local funcs = require("funcs")

return function()
  local _, err = funcs.call("lua.support:fn.relay", "lua.support:fn.relay", "lua.support:fn.fail",
    { message = "deep", kind = "RateLimited", retryable = true, details = { wait = 5 } })
  check.error_is(err, "RateLimited", "^deep$", true)
  check.equal(err:details(), { wait = 5 })
end
