-- 13.1 `json.validate`, `validate_string`: `schema is required`, `data is required`.
local json = require("json")

return function()
  for _, name in ipairs{ "validate", "validate_string" } do
    local ok, err = json[name](nil, "{}")
    check.is_false(ok)
    check.error_is(err, errors.INVALID, "schema is required")
    ok, err = json[name]({ type = "object" }, nil)
    check.is_false(ok)
    check.error_is(err, errors.INVALID, "data is required")
  end
end
