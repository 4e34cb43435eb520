-- 2.1 The chunk returns a table whose field `method` is the function.
local funcs = require("funcs")

return function()
  check.equal(funcs.call("lua.support:two_methods"), 2)
end
