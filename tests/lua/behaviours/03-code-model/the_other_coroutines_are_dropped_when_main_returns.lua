-- 3.1 When the main function returns, the unit ends and its other coroutines are dropped.
local funcs = require("funcs")

return function()
  check.equal(funcs.call("lua.support:leaves_a_coroutine", process.pid()), "main is done")
  check.nothing(process.listen("left"), "250ms")
end
