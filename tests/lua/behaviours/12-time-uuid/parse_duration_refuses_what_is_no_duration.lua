-- 12.1 `time.parse_duration` of what cannot be read → `nil, Invalid`.
local time = require("time")

return function()
  for _, text in ipairs{ "", "soon", "5", "5 minutes", "1h30", "1d", "h", "1h-" } do
    local d, err = time.parse_duration(text)
    check.is_nil(d, text)
    check.is_true(errors.is(err, errors.INVALID), text)
  end
end
