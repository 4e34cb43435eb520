-- 3.4 Cyclic tables are an error; one that stands in two places is none, and becomes two.
local funcs = require("funcs")

return function()
  local shared = { 1 }
  local got, err = funcs.call("lua.support:echo", { a = shared, b = shared })
  check.is_nil(err)
  check.equal(got, { a = { 1 }, b = { 1 } })
end
