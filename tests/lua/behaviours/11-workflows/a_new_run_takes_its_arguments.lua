-- 11.9 The new run gets the arguments of `upgrade`, and no others.
-- as: workflow
local time, workflow = require("time"), require("workflow")

return function(round, first_run, more)
  local info = workflow.info()
  time.sleep("5ms")
  if round == nil then process.upgrade(nil, { n = 2 }, info.run_id) end
  check.equal(round, { n = 2 })
  check.is_false(info.run_id == first_run)
  check.is_nil(more)
  time.sleep("5ms")
end
