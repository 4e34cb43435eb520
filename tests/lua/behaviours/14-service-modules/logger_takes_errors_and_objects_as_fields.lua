-- 14.1 Fields: table with string keys; Errors and objects through `tostring`.
local logger, time = require("logger"), require("time")

return function()
  logger:warn("fields of all kinds", { err = errors.new("sold out"), at = time.now(), ch = channel.new(), f = print })
  logger:warn(errors.new("an Error as the text"))
end
