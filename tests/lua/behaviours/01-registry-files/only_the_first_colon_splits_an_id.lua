-- 1.1 Only the first `:` splits an ID.
local registry = require("registry")

return function()
  check.equal(registry.parse_id("lua.support:two:colons"), { ns = "lua.support", name = "two:colons" })
end
