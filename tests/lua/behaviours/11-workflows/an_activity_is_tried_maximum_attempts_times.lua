-- 11.6 `maximum_attempts` counts the attempts; the error of the last one is the result.
-- as: workflow
-- kill: never, because an activity whose owner is killed may run once more
local funcs = require("funcs")

return function()
  local key = check.unique("maximum")
  local executor = funcs.new():with_options({
    ["temporal.activity.retry_policy"] = { initial_interval = "2ms", backoff_coefficient = 1, maximum_attempts = 3 },
  })
  local spec = { key = key, fails = 99, with = { message = "no", kind = "Unavailable", details = { mine = 1 } } }
  local err = check.fails("Unavailable", "^no$", executor:call("lua.support:fn.attempt", spec))
  check.equal(err:details().mine, 1)
  check.equal(funcs.call("lua.support:fn.attempts", key), 3)
end
