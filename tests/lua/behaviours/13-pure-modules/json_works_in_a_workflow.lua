-- 11.1 `json` may be used in a workflow.
-- as: workflow
local json, time = require("json"), require("time")

return function()
  local text = json.encode({ a = { 1, 2 } })
  time.sleep("5ms")
  check.equal(json.decode(text), { a = { 1, 2 } })
  check.is_true(json.validate({ type = "object" }, { a = 1 }))
  check.is_false(json.validate({ type = "object" }, 5))
end
