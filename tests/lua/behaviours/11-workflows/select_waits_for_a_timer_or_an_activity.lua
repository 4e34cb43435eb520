-- 11.4 `select` over timers and futures: what comes first is taken, and the other is still there.
-- as: workflow
local time, funcs = require("time"), require("funcs")

return function()
  local limit, future = time.after("30ms"), funcs.async("lua.support:fn.sleep", "10s")
  local r = channel.select{ future:channel():case_receive(), limit:case_receive() }
  check.is_true(r.channel == limit)
  future:cancel()
  local quick = funcs.async("lua.support:fn.echo", "quick")
  r = channel.select{ quick:channel():case_receive(), time.after("1m"):case_receive() }
  check.equal(r.value:data(), "quick")
end
