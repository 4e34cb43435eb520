-- 2.1 A function that a chunk returns is used as is; `method` is ignored (trap 15.18).
local funcs = require("funcs")

return function()
  check.equal(funcs.call("lua.support:bare_function"), "bare")
end
