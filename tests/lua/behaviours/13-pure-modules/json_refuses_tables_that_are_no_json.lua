-- 13.1 `json.encode`: sparse list, mixed keys, cycle → error of kind `Internal`, not retryable.
local json = require("json")

return function()
  local cycle = {}
  cycle.self = cycle
  for name, value in pairs{ sparse = { [1] = 1, [3] = 3 }, mixed = { 1, a = 2 }, cycle = cycle, key = { [true] = 1 } } do
    local text, err = json.encode(value)
    check.is_nil(text, name)
    check.error_is(err, errors.INTERNAL, nil, false)
  end
end
