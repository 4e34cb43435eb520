-- 10.4 `result()` tells the outcome whether or not somebody has received it.
local funcs = require("funcs")

return function()
  local future = funcs.async("lua.support:fn.echo", 7)
  check.eventually(function() return future:is_complete() end)
  check.equal(future:result():data(), 7)
  check.equal(check.receive(future:channel()):data(), 7)
  check.equal(future:result():data(), 7)
end
