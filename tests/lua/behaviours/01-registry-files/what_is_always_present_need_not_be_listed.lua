-- 1.3 The always-present globals need not be listed; listing them, or process and channel, is harmless.
-- modules: process channel errors string
return function()
  check.is_true(require("errors") == errors)
  check.type_is(process.pid(), "string")
  check.type_is(channel.new(1), "userdata")
  check.type_is(table.concat, "function")
end
