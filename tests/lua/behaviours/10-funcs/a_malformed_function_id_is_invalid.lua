-- 10.1 "" is `function ID required`, an id without namespace `namespace required in function ID`; one without name is Invalid, too.
local funcs = require("funcs")

return function()
  check.fails("Invalid", "^function ID required$", funcs.call(""))
  check.fails("Invalid", "^namespace required in function ID$", funcs.call("echo"))
  check.fails("Invalid", "^namespace required in function ID$", funcs.call(":echo"))
  check.fails("Invalid", nil, funcs.call("lua.support:"))
end
