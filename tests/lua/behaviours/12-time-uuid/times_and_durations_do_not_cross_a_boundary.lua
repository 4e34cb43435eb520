-- 3.4 Time and Duration objects become nil at a unit boundary; a field holding one disappears.
local time, funcs = require("time"), require("funcs")

return function()
  local got = assert(funcs.call("lua.support:pure.echo", { at = time.now(), d = time.parse_duration("1s"), n = 1 }))
  check.equal(got, { n = 1 })
end
