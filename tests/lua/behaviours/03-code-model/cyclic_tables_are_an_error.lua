-- 3.4 Cyclic tables are an error: as arguments, as results, in messages.
local funcs = require("funcs")

return function()
  local t = {}
  t.t = t
  local function outcome(fn, ...)
    local ok, value, err = pcall(fn, ...)
    if not ok then return value end
    check.is_nil(value)
    return err
  end
  check.type_is(outcome(funcs.call, "lua.support:echo", t), "userdata")
  check.type_is(outcome(process.send, process.pid(), "x", t), "userdata")
  check.fails("Internal", nil, funcs.call("lua.support:cyclic"))
end
