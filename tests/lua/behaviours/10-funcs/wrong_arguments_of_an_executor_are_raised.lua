-- 10.1 Builder argument errors are raised (trap 7).
local funcs = require("funcs")

return function()
  local executor = funcs.new()
  check.raises(function() executor:with_context("user") end)
  check.raises(function() executor:with_context() end)
  check.raises(function() executor:with_context({ "no key" }) end)
  check.raises(function() executor:with_options(5) end)
end
