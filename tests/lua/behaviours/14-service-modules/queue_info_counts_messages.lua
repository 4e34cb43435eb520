-- 14.7 `queue.info(id)` → `{message_count, ready, …}`; unknown → `Internal`. A full memory queue takes no more.
local queue = require("queue")

return function()
  local count = assert(queue.info("lua.support:services.unread")).message_count
  for i = count + 1, 3 do check.is_true(queue.publish("lua.support:services.unread", { n = i })) end
  local info = queue.info("lua.support:services.unread")
  check.equal(info.message_count, 3)
  check.equal(info.ready, 3)
  check.fails(errors.INTERNAL, nil, queue.publish("lua.support:services.unread", { n = 4 }))
  check.fails(errors.INTERNAL, nil, queue.info("lua.support:no_such"))
end
