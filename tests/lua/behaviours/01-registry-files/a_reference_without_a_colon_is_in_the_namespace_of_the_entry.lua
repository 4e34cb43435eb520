-- 1.1 A name without `:` is resolved in the entry's own namespace.
local funcs = require("funcs")

return function()
  check.equal(funcs.call("lua.support:local_import"), "money")
end
