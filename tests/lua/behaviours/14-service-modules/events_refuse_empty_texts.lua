-- 14.3 `events.subscribe("")` → `nil, Invalid`; `events.send` with any empty text → `nil, Invalid`.
local events = require("events")

return function()
  check.fails(errors.INVALID, nil, events.subscribe(""))
  check.fails(errors.INVALID, nil, events.send("", "k", "/"))
  check.fails(errors.INVALID, nil, events.send("s", "", "/"))
  check.fails(errors.INVALID, nil, events.send("s", "k", ""))
end
