-- 11.4 What is wrong with the id of a call is told at once, as elsewhere (10.1).
-- as: workflow
local funcs = require("funcs")

return function()
  check.fails("Invalid", "^function ID required$", funcs.call(""))
  check.fails("Invalid", "^namespace required in function ID$", funcs.async("echo"))
end
