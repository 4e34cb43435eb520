-- 10.1 An Error that is returned arrives as it is: no kind stays no kind, retryable that nobody said stays unsaid.
local funcs = require("funcs")

return function()
  local _, err = funcs.call("lua.support:fn.fail", { message = "odd" })
  check.error_is(err, "", "^odd$", "unsaid")
end
