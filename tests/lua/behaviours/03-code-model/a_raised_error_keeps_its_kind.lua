-- 3.3 A raised Error keeps its kind; an empty one becomes Internal.
local funcs = require("funcs")

return function()
  local _, err = funcs.call("lua.support:raises", { message = "too late", kind = errors.TIMEOUT, retryable = true, details = { s = 3 } })
  check.error_is(err, "Timeout", "^too late$", true)
  check.equal(err:details(), { s = 3 })
  _, err = funcs.call("lua.support:raises", { message = "who knows" })
  check.error_is(err, "Internal", "^who knows$")
end
