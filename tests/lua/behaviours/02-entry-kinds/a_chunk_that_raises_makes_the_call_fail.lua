-- 2.1 A chunk that raises makes the call fail.
local funcs = require("funcs")

return function()
  check.fails("Internal", "the chunk failed", funcs.call("lua.support:bad_chunk"))
end
