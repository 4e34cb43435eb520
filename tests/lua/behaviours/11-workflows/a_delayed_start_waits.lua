-- 11.2 `start_delay`: the first run waits; a number is milliseconds.
-- imports: wf=lua.support:wf.lib
local time = require("time")

return function()
  for _, delay in ipairs({ 60, "60ms" }) do
    local before = time.now()
    check.equal(wf.value(wf.start("wf.echo", { start_delay = delay }, 7)), 7)
    local taken = time.now():sub(before):milliseconds()
    check.is_true(taken >= 60 and taken < 10000)
  end
end
