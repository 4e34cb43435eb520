-- 5.1 A PID that went through a message or a call still addresses its unit.
local funcs = require("funcs")

return function()
  check.is_true(funcs.call("lua.support:tell", process.pid(), "hello", { from = "afar" }))
  check.equal(check.receive(process.listen("hello")), { from = "afar" })
  local pid = process.spawn("lua.support:reports", "lua.support:processes", process.pid())
  local told = check.receive(process.listen("report")).pid
  check.is_true(told == pid)
  check.is_true(process.send(told, "stop"))
end
