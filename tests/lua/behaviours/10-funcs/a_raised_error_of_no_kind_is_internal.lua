-- 10.1 What the function raises is its failure: an Error keeps its kind, one without and a text are Internal (3.3).
local funcs = require("funcs")

return function()
  local _, kept = funcs.call("lua.support:fn.fail", { message = "m", kind = "Conflict", retryable = false }, true)
  check.error_is(kept, "Conflict", "^m$", false)
  local _, bare = funcs.call("lua.support:fn.fail", { message = "m" }, true)
  check.error_is(bare, "Internal", "^m$")
  local _, text = funcs.call("lua.support:fn.fail", "it broke")
  check.error_is(text, "Internal", "fail%.lua:%d+: it broke$")
end
