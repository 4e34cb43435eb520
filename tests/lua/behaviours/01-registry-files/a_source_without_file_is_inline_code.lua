-- 1.1 A `source` without file:// is inline code.
local funcs = require("funcs")

return function()
  check.equal(funcs.call("lua.support:inline", 21), 42)
end
