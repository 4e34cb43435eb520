-- 3.4 Kept: Errors, also as plain values inside of tables.
local funcs = require("funcs")

return function()
  local err = errors.new{ message = "m", kind = errors.RATE_LIMITED, retryable = true, details = { after = 3, who = { "a" } } }
  local got = funcs.call("lua.support:echo", { err = err, list = { err } })
  check.error_is(got.err, "RateLimited", "^m$", true)
  check.equal(got.err:details(), { after = 3, who = { "a" } })
  check.error_is(got.list[1], "RateLimited", "^m$", true)
  check.error_is(funcs.call("lua.support:echo", errors.new("plain")), "", "^plain$", "unsaid")
end
