-- 3.5 The loader erases the annotations keeping line numbers.
local funcs = require("funcs")

return function()
  check.fails("Internal", "typed.lua:23: at line 23", funcs.call("lua.support:typed", "raise"))
end
