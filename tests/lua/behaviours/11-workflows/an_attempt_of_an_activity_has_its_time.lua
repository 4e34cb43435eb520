-- 11.5 `start_to_close_timeout` bounds one attempt: Timeout, not retryable, with the type of the timeout (11.7).
-- as: workflow
-- kill: never, because an attempt has its time once more when its owner is killed
local funcs = require("funcs")

return function()
  for _, limit in ipairs({ 40, "40ms" }) do
    local executor = funcs.new():with_options({
      ["activity.start_to_close_timeout"] = limit, ["activity.retry_policy"] = { maximum_attempts = 1 },
    })
    local value, err = executor:call("lua.support:fn.sleep", "10s")
    check.is_nil(value)
    check.error_is(err, "Timeout", nil, false)
    check.matches(err:details().timeout_type:lower():gsub("_", ""), "^starttoclose$")
  end
end
