-- 3.1 An error that nobody catches, in any coroutine, ends the function call with that error.
local funcs = require("funcs")

return function()
  check.fails("Internal", "the coroutine says no$", funcs.call("lua.support:coroutines_call", "fail"))
end
