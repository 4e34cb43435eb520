-- 14.7 `queue.message()` outside a consumer → `Invalid`.
local queue = require("queue")

return function()
  check.fails(errors.INVALID, nil, queue.message())
end
