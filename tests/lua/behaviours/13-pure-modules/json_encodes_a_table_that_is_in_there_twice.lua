-- 13.1 Only a cycle is an error: one table in two places is written twice.
local json = require("json")

return function()
  local shared = { 1 }
  check.equal(json.encode({ shared, shared }), "[[1],[1]]")
end
