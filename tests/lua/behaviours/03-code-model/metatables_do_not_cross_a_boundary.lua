-- 3.4 Functions and metatables: do not rely on either; the values of the table are kept.
local funcs = require("funcs")

return function()
  local account = setmetatable({ balance = 7 }, { __index = { name = "method" } })
  local got, err = funcs.call("lua.support:echo", account)
  check.is_nil(err)
  check.equal(got.balance, 7)
  check.is_nil(rawget(got, "name"))
end
