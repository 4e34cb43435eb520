-- 13.1 `json.encode`: empty table → `[]`.
local json = require("json")

return function()
  check.equal(json.encode({}), "[]")
  check.equal(json.encode({ items = {} }), '{"items":[]}')
end
