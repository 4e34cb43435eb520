-- 12.2 `v3`, `v5` → `nil, Invalid` when the namespace is no UUID.
local uuid = require("uuid")

return function()
  check.fails(errors.INVALID, nil, uuid.v3("dns", "x"))
  check.fails(errors.INVALID, nil, uuid.v5("", "x"))
end
