-- 13.1 `json.decode`: `null` → nil, without an error.
local json = require("json")

return function()
  local value, err = json.decode("null")
  check.is_nil(value)
  check.is_nil(err)
  check.equal(json.decode('{"a":null,"b":1}'), { b = 1 })
end
