-- 10.4 Several calls are under way at once; `select` takes the one that is done.
local funcs = require("funcs")

return function()
  local slow, quick = funcs.async("lua.support:fn.sleep", "10s"), funcs.async("lua.support:fn.echo", "quick")
  local r = channel.select{ slow:channel():case_receive(), quick:channel():case_receive() }
  check.is_true(r.channel == quick:channel())
  check.equal(r.value:data(), "quick")
  slow:cancel()
end
