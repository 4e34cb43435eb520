-- 11.4 A workflow signals another one by its PID, as anybody can; both messages have the same sender.
-- imports: wf=lua.support:wf.lib
local funcs = require("funcs")

return function()
  local pid = wf.start("wf.collect", nil, 2)
  check.equal(funcs.call("lua.support:fn.exec", "lua.support:wf.tell", "lua.support:worker", pid, { { "a", 1 }, { "b", 2 } }), { true, true })
  local got = wf.value(pid)
  check.equal({ got[1].value, got[2].value }, { 1, 2 })
  check.equal(got[1].from, got[2].from)
end
