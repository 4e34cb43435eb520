-- 12.2 `validate(any)` → boolean (false for non-strings).
local uuid = require("uuid")

return function()
  check.is_true(uuid.validate("6ba7b810-9dad-11d1-80b4-00c04fd430c8"))
  check.is_true(uuid.validate(uuid.v7()))
  for _, wrong in ipairs{ "", "x", "6ba7b810-9dad-11d1-80b4-00c04fd430c", "6ba7b810-9dad-11d1-80b4-00c04fd430cg", 5, true,
    {} } do
    check.is_false(uuid.validate(wrong), check.shown(wrong))
  end
  check.is_false(uuid.validate(nil))
end
