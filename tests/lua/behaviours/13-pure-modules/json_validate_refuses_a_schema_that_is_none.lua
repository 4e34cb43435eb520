-- 13.1 A schema that cannot be read → `false, Invalid`.
local json = require("json")

return function()
  for _, schema in ipairs{ "{", { type = "no such type" }, 5 } do
    local ok, err = json.validate(schema, { a = 1 })
    check.is_false(ok, check.shown(schema))
    check.error_is(err, errors.INVALID)
  end
end
