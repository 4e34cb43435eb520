-- 3.4 Kept: nil and booleans, in their places.
local funcs = require("funcs")

return function()
  check.equal(funcs.call("lua.support:pack", nil, 2, nil, false, true), { n = 5, nil, 2, nil, false, true })
  check.equal(funcs.call("lua.support:pack", 1, nil).n, 2)
  check.equal(funcs.call("lua.support:pack").n, 0)
end
