-- 7.2 The child inherits the caller's context values, and so does its child.
local funcs = require("funcs")

return function()
  local about = funcs.new():with_context{ trace = "t1", depth = { 1, 2 } }:call("lua.support:about_child_of_call")
  check.equal(about.context, { trace = "t1", depth = { 1, 2 } })
end
