-- 13.1 `json.validate(schema, data)` → `true` or `false, Invalid`; schema = table or JSON text.
local json = require("json")

return function()
  local schema = {
    type = "object", required = { "sku" },
    properties = { sku = { type = "string", minLength = 2 }, n = { type = "integer", minimum = 1 } },
  }
  for _, form in ipairs{ schema, json.encode(schema) } do
    local ok, err = json.validate(form, { sku = "ab", n = 3 })
    check.is_true(ok)
    check.is_nil(err)
    for _, wrong in ipairs{ { n = 1 }, { sku = "a" }, { sku = "ab", n = 0 }, { sku = "ab", n = "x" }, "text" } do
      ok, err = json.validate(form, wrong)
      check.is_false(ok, check.shown(wrong))
      check.error_is(err, errors.INVALID)
    end
  end
end
