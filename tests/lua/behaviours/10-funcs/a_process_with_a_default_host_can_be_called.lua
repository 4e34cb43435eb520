-- 10.5 A `process.lua` with `meta.default_host` is callable: it is spawned there and its return is the result.
local funcs = require("funcs")

return function()
  check.equal(funcs.call("lua.support:fn.process", "echo", 1, nil, 3), { n = 3, 1, nil, 3 })
  local future = funcs.async("lua.support:fn.process", "echo", "x")
  check.equal(check.receive(future:channel()):data(), { n = 1, "x" })
  check.equal(funcs.new():with_context({ user = "ada" }):call("lua.support:fn.process", "context"), { user = "ada" })
end
