-- 14.7 The handler gets the body; `queue.message()` → the message being handled: `id() header(k) headers()`.
local queue, funcs = require("queue"), require("funcs")

return function()
  local handled = process.listen("handled")
  local body = { reply = process.pid(), list = { 1, 2.5, true }, text = "x" }
  check.is_true(funcs.call("lua.support:services.publish", "lua.support:services.tasks", body))
  check.is_true(queue.publish("lua.support:services.jobs", body, { trace = "t-1" }))
  local ids = {}
  for _ = 1, 2 do
    local told = check.receive(handled)
    check.equal(told.body, body)
    check.type_is(told.id, "string")
    check.is_nil(ids[told.id])
    ids[told.id] = true
    check.equal(told.trace, "t-1")
    check.equal(told.headers.trace, "t-1")
  end
end
