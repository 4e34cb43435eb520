-- 13.1 `json.validate_string(schema, text)` → `true` or `false, Invalid`.
local json = require("json")

return function()
  local schema = { type = "array", items = { type = "integer" } }
  check.is_true(json.validate_string(schema, "[1, 2]"))
  for _, text in ipairs{ '["x"]', "5", "[1," } do
    local ok, err = json.validate_string(schema, text)
    check.is_false(ok, text)
    check.error_is(err, errors.INVALID)
  end
end
