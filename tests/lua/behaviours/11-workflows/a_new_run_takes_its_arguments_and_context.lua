-- 11.9 The new run gets the arguments of `upgrade`, and the context stays.
-- as: workflow
-- imports: wf=lua.support:wf.lib
local ctx = require("ctx")

return function(round, first_run)
  local info = require("workflow").info()
  if round == nil then process.upgrade(nil, { n = 2 }, info.run_id) end
  check.equal(round, { n = 2 })
  check.is_false(info.run_id == first_run)
  check.equal(ctx.all(), {})
end
