-- 3.1 An error that nobody catches, in any coroutine, ends the unit with that error.
local funcs = require("funcs")

return function()
  check.fails("Internal", "coroutines.lua:%d+: in a coroutine", funcs.call("lua.support:coroutine_raises"))
  check.fails("Conflict", "^sold out$", funcs.call("lua.support:coroutine_raises_an_error"))
end
