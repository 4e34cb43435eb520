-- 3.4 Kept: integers (stay integers), floats.
local funcs = require("funcs")

return function()
  for _, n in ipairs{ 0, 1, -1, math.maxinteger, math.mininteger, 1 << 53 } do
    check.type_is(check.equal(funcs.call("lua.support:echo", n), n), "integer")
  end
  for _, x in ipairs{ 0.0, 1.0, -2.5, 1e300, 2^53 } do
    check.type_is(check.equal(funcs.call("lua.support:echo", x), x), "float")
  end
  check.equal(funcs.call("lua.support:echo", 1 / 0), 1 / 0)
  local nan = funcs.call("lua.support:echo", 0 / 0)
  check.is_true(nan ~= nan)
end
