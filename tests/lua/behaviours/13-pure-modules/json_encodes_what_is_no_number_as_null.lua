-- 13.1 `json.encode`: NaN/Inf → `null`.
local json = require("json")

return function()
  check.equal(json.encode(0 / 0), "null")
  check.equal(json.encode({ 1 / 0, -1 / 0 }), "[null,null]")
end
