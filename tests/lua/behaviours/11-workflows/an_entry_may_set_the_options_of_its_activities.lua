-- 11.5 An entry's `meta.options` are defaults of its calls; those of the call win (2.1).
-- as: workflow
-- kill: never, because an activity whose owner is killed may run once more
local funcs = require("funcs")

return function()
  local failure = { message = "no", kind = "Unavailable" }
  local key, more = check.unique("defaults"), check.unique("more")
  check.fails("Unavailable", "^no$", funcs.call("lua.support:fn.twice", { key = key, fails = 9, with = failure }))
  check.equal(funcs.call("lua.support:fn.attempts", key), 2)
  local executor = funcs.new():with_options({ ["activity.retry_policy"] = { initial_interval = 1, maximum_attempts = 3 } })
  check.fails("Unavailable", "^no$", executor:call("lua.support:fn.twice", { key = more, fails = 9, with = failure }))
  check.equal(funcs.call("lua.support:fn.attempts", more), 3)
end
