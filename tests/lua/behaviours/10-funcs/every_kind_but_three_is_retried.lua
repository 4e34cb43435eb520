-- 10.3 Without `retry_kinds` every kind is retried but Invalid, PermissionDenied and Internal.
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({ retry = { max_attempts = 2, initial_delay = 1, jitter = 0 } })
  local function attempts(kind)
    local key = check.unique("kind")
    executor:call("lua.support:fn.attempt", { key = key, fails = 9, with = { message = "no", kind = kind } })
    return funcs.call("lua.support:fn.attempts", key)
  end
  for _, kind in ipairs({ "", "Unavailable", "Timeout", "NotFound", "Conflict", "RateLimited", "AlreadyExists", "Own" }) do
    check.equal(attempts(kind), 2, "kind " .. kind)
  end
  for _, kind in ipairs({ "Invalid", "PermissionDenied", "Internal" }) do
    check.equal(attempts(kind), 1, "kind " .. kind)
  end
end
