-- 13.1 `json.decode`: non-string or `""` → `Invalid`.
local json = require("json")

return function()
  check.fails(errors.INVALID, nil, json.decode(""))
  check.fails(errors.INVALID, nil, json.decode(5))
  check.fails(errors.INVALID, nil, json.decode({}))
  check.fails(errors.INVALID, nil, json.decode(nil))
end
