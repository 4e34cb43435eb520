-- 10.3 `retry` may stand in the entry's `meta.options`; the call's option wins key by key.
local funcs = require("funcs")

return function()
  local failure = { message = "no", kind = "Unavailable" }
  check.equal(funcs.call("lua.support:fn.retried", { key = check.unique("entry"), fails = 2, with = failure }), 3)
  local key = check.unique("fewer")
  local twice = funcs.new():with_options({ retry = { max_attempts = 2 } })
  check.fails("Unavailable", nil, twice:call("lua.support:fn.retried", { key = key, fails = 9, with = failure }))
  check.equal(funcs.call("lua.support:fn.attempts", key), 2)
  local skipping = funcs.new():with_options({ retry = { skip_kinds = { "Unavailable" } } })
  key = check.unique("skipped")
  check.fails("Unavailable", nil, skipping:call("lua.support:fn.retried", { key = key, fails = 9, with = failure }))
  check.equal(funcs.call("lua.support:fn.attempts", key), 1)
end
