-- 10.1 `funcs.call(id, ...)` gives what the function returns for these arguments, and no error.
local funcs = require("funcs")

return function()
  local value, err = funcs.call("lua.support:fn.echo", { order = 7 })
  check.equal(value, { order = 7 })
  check.is_nil(err)
  check.equal(funcs.call("lua.support:fn.echo", 1, nil, "c"), { n = 3, 1, nil, "c" })
  check.equal(funcs.call("lua.support:fn.echo"), { n = 0 })
end
