-- 10.1 Objects among the arguments arrive as nil, a cyclic table is an error (3.4).
local funcs, time = require("funcs"), require("time")

return function()
  check.equal(funcs.call("lua.support:fn.echo", { at = time.now(), n = 1, deep = { ch = channel.new() } }), { n = 1, deep = {} })
  local knot = {}
  knot.me = knot
  local value, err = funcs.call("lua.support:fn.echo", knot)
  check.is_nil(value)
  check.type_is(err, "userdata")
end
