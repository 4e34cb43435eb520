-- 14.1 `logger:named("")` raises.
local logger = require("logger")

return function()
  check.raises(function() logger:named("") end)
end
