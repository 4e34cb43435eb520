-- 11.5 An id that nobody offers: NotFound, retryable true, and it is retried until the policy ends.
-- as: workflow
local funcs = require("funcs")

return function()
  local policy = { initial_interval = 1, maximum_attempts = 2 }
  local executor = funcs.new():with_options({ ["activity.retry_policy"] = policy })
  local value, err = executor:call("lua.support:fn.nobody")
  check.is_nil(value)
  check.error_is(err, "NotFound", "^no handler registered for target", true)
end
