-- 6.4 Only when it holds nothing that could ever wake it, it fails with kind Internal (`all coroutines blocked …`).
local funcs = require("funcs")

return function()
  check.fails("Internal", "all coroutines blocked", funcs.call("lua.support:waits_for_nothing"))
  check.fails("Internal", "all coroutines blocked", funcs.call("lua.support:deadlocks"))
end
