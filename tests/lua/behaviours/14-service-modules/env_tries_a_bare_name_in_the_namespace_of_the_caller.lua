-- 14.5 A bare name is also tried in the caller's namespace.
local env, funcs = require("env"), require("funcs")

return function()
  check.equal(funcs.call("lua.support:services.variable", "only_by_id"), "by id")
  check.fails(errors.NOT_FOUND, nil, env.get("only_by_id"))
end
