-- 12.1 `time.parse` → `nil, Invalid` (not retryable) when the text does not fit the layout.
local time = require("time")

return function()
  for _, text in ipairs{ "", "tomorrow", "2024-13-01", "2024-02-30", "2024-03-05 06:07:08" } do
    local t, err = time.parse(time.DATE_ONLY, text)
    check.is_nil(t, text)
    check.error_is(err, errors.INVALID, nil, false)
  end
end
