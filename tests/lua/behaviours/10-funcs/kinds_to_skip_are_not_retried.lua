-- 10.3 Kinds in `skip_kinds` are never retried, not even those in `retry_kinds`.
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({
    retry = { max_attempts = 3, initial_delay = 1, skip_kinds = { "Conflict" }, retry_kinds = { "Conflict", "Timeout" } },
  })
  local skipped, other = check.unique("skipped"), check.unique("other")
  check.fails("Conflict", nil,
    executor:call("lua.support:fn.attempt", { key = skipped, fails = 9, with = { message = "no", kind = "Conflict" } }))
  check.equal(funcs.call("lua.support:fn.attempts", skipped), 1)
  check.equal(executor:call("lua.support:fn.attempt", { key = other, fails = 1, with = { message = "no", kind = "Timeout" } }), 2)
end
