-- 14.1 A ready object: `logger:debug/info/warn/error(text[, fields])`.
local logger = require("logger")

return function()
  for _, level in ipairs{ "debug", "info", "warn", "error" } do
    logger[level](logger, "a line of the suite")
    logger[level](logger, "with fields", { n = 1, text = "x", list = { 1, { a = true } } })
  end
end
