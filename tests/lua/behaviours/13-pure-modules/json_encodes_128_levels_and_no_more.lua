-- 13.1 `json.encode`: depth > 128 → error, not retryable.
local json = require("json")

local function nested(depth)
  local value = {}
  for _ = 2, depth do value = { value } end
  return value
end

return function()
  check.equal(json.encode(nested(128)), ("["):rep(128) .. ("]"):rep(128))
  local text, err = json.encode(nested(129))
  check.is_nil(text)
  check.error_is(err, errors.INTERNAL, nil, false)
end
