-- 6.2 A timer is a channel: whoever is first is in `r.channel`.
local time = require("time")

return function()
  local inbox, limit = channel.new(), time.after("10ms")
  local r = channel.select{ inbox:case_receive(), limit:case_receive() }
  check.is_true(r.channel == limit)
  check.type_is(r.value, "userdata")
end
