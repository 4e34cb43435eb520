-- 11.5 A process that can be called is an activity, too.
-- as: workflow
local funcs = require("funcs")

return function()
  check.equal(funcs.call("lua.support:fn.process", "echo", 1, 2), { n = 2, 1, 2 })
  local value, err = funcs.call("lua.support:fn.process", "fail", { message = "no", kind = "Conflict", retryable = false })
  check.is_nil(value)
  check.error_is(err, "Conflict", "^no$", false)
end
