-- 3.4 Other objects (Time, Duration, channels, futures, …) become nil; a field holding one disappears.
local funcs = require("funcs")
local time = require("time")

return function()
  local got, err = funcs.call("lua.support:objects", {
    time = time.now(), duration = time.parse_duration("1s"), channel = channel.new(), kept = 1,
  })
  check.is_nil(err)
  check.equal(got, { given = { time = true, duration = true, channel = true, kept = 1 }, kept = "yes" })
  check.is_nil((funcs.call("lua.support:echo", time.now())))
  check.equal(funcs.call("lua.support:pack", time.now(), 2), { n = 2, nil, 2 })
end
