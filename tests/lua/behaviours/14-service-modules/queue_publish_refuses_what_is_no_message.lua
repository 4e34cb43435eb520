-- 14.7 `queue.publish`: empty id or empty table → `nil, Invalid`; failure → `Internal`.
local queue = require("queue")

return function()
  check.fails(errors.INVALID, nil, queue.publish("", "x"))
  check.fails(errors.INVALID, nil, queue.publish("lua.support:services.unread", {}))
  check.fails(errors.INTERNAL, nil, queue.publish("lua.support:no_such", "x"))
  check.fails(errors.INTERNAL, nil, queue.publish("lua.support:services.teapot", "x"))
end
