-- 10.3 Never retried: `retryable() == false`, whatever `retry_kinds` says.
local funcs = require("funcs")

return function()
  local key = check.unique("final")
  local executor = funcs.new():with_options({ retry = { max_attempts = 3, initial_delay = 1, retry_kinds = { "Conflict" } } })
  local failure = { message = "no", kind = "Conflict", retryable = false }
  check.fails("Conflict", "^no$", executor:call("lua.support:fn.attempt", { key = key, fails = 9, with = failure }))
  check.equal(funcs.call("lua.support:fn.attempts", key), 1)
end
