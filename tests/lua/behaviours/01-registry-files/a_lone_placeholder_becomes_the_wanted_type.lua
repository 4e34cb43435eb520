-- 1.2 A value that consists of one placeholder only is coerced to the wanted type.
local funcs = require("funcs")

return function()
  check.equal(funcs.call("lua.support:placeholder_pool"), "runs")
end
