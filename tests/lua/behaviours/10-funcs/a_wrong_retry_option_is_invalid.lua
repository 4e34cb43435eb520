-- 10.3 A `retry` that cannot be read is a bad argument value: Invalid (4).
local funcs = require("funcs")

return function()
  local wrong = {
    "twice", { max_attempts = "three" }, { max_attempts = 2, initial_delay = "soon" }, { max_attempts = 2, max_delay = {} },
    { max_attempts = 2, backoff_factor = {} }, { max_attempts = 2, retry_kinds = "Timeout" },
    { max_attempts = 2, skip_kinds = { 5 } }, { max_attempts = 2, jitter = "much" },
  }
  for i, retry in ipairs(wrong) do
    local executor = funcs.new():with_options({ retry = retry })
    local err = check.fails("Invalid", "retry", executor:call("lua.support:fn.echo", i))
    check.is_false(err:retryable())
  end
end
