-- 2.1 The chunk is run synchronously: no blocking call is allowed at top level.
local funcs = require("funcs")

return function()
  check.fails("Internal", nil, funcs.call("lua.support:waits_in_chunk"))
end
