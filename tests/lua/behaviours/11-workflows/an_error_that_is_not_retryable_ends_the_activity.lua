-- 11.5 An error with `retryable() == false` ends the activity at once.
-- as: workflow
-- kill: never, because an activity whose owner is killed may run once more
local funcs = require("funcs")

return function()
  local key = check.unique("final")
  local failure = { message = "no", kind = "Unavailable", retryable = false }
  local _, err = funcs.call("lua.support:fn.attempt", { key = key, fails = 9, with = failure })
  check.error_is(err, "Unavailable", "^no$", false)
  check.equal(funcs.call("lua.support:fn.attempts", key), 1)
end
