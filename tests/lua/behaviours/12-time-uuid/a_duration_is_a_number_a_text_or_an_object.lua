-- 12.1 Wherever a duration is wanted it may be a number of ns, a Go duration string or a Duration object.
local time = require("time")

return function()
  local base = time.unix(100, 0)
  local minute = time.parse_duration("1m")
  check.equal(base:add("1m"):unix(), 160)
  check.equal(base:add(60 * time.SECOND):unix(), 160)
  check.equal(base:add(minute):unix(), 160)
  local short = time.parse_duration("1ms")
  time.sleep(short)
  check.receive(time.after(short))
  check.receive(time.timer(short):channel())
  local ticker = time.ticker(short)
  check.receive(ticker:channel())
  ticker:stop()
end
