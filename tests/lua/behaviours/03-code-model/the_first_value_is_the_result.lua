-- 3.3 The first value is the result; a second one that is nil or anything not listed does not matter.
local funcs = require("funcs")

return function()
  for _, what in ipairs{ "nil", "table", "number", "false" } do
    local value, err = funcs.call("lua.support:returns", what)
    check.equal(value, 1, what)
    check.is_nil(err, what)
  end
end
