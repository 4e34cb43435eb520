-- 10.5 The error of a process that is called is the error of the call.
local funcs = require("funcs")

return function()
  local _, err = funcs.call("lua.support:fn.process", "fail", { message = "no", kind = "Conflict", retryable = true, details = { a = 1 } })
  check.error_is(err, "Conflict", "^no$", true)
  check.equal(err:details(), { a = 1 })
end
