-- 3.3 An Error as the second value: failure with exactly that Error.
local funcs = require("funcs")

return function()
  local value, err = funcs.call("lua.support:returns", "error")
  check.is_nil(value)
  check.error_is(err, "Conflict", "^no stock$", true)
  check.equal(err:details(), { sku = "x1" })
  check.fails("", "^who knows$", funcs.call("lua.support:returns", "unknown kind"))
end
