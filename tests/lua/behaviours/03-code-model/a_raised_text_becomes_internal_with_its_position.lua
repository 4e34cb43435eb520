-- 3.3 A raised string becomes kind Internal with the text, position prefix included.
local funcs = require("funcs")

return function()
  check.fails("Internal", "functions.lua:%d+: the till is stuck$", funcs.call("lua.support:raises", "the till is stuck"))
end
