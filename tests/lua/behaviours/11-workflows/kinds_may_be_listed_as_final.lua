-- 11.6 An error whose kind is in `non_retryable_error_types` ends the activity at once; a Lua crash is of kind Internal (11.5).
-- as: workflow
-- kill: never, because an activity whose owner is killed may run once more
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({
    ["activity.retry_policy"] = { initial_interval = 2, non_retryable_error_types = { "Conflict", "Internal" } },
  })
  local listed, crash = check.unique("listed"), check.unique("crash")
  check.fails("Conflict", "^no$",
    executor:call("lua.support:fn.attempt", { key = listed, fails = 9, with = { message = "no", kind = "Conflict", retryable = true } }))
  check.equal(funcs.call("lua.support:fn.attempts", listed), 1)
  check.fails("Internal", "a crash$", executor:call("lua.support:fn.attempt", { key = crash, fails = 9, with = "a crash" }))
  check.equal(funcs.call("lua.support:fn.attempts", crash), 1)
end
