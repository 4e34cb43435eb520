-- 10.3 The call's `retry` wins key by key: an empty one changes nothing, with and without one in the entry.
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({ retry = {} })
  local failure = { message = "no", kind = "Unavailable" }
  local plain = check.unique("plain")
  check.fails("Unavailable", "^no$", executor:call("lua.support:fn.attempt", { key = plain, fails = 9, with = failure }))
  check.equal(funcs.call("lua.support:fn.attempts", plain), 1)
  local entry = check.unique("entry")
  check.equal(executor:call("lua.support:fn.retried", { key = entry, fails = 2, with = failure }), 3)
end
