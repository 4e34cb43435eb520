-- 11.10 An empty name or min > max: nil, Invalid.
-- as: workflow
local workflow = require("workflow")

return function()
  check.fails("Invalid", nil, workflow.version("", 1, 2))
  check.fails("Invalid", nil, workflow.version("change", 3, 2))
end
