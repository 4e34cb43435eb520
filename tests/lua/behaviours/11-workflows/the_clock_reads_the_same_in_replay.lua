-- 11.4 `time.now()` comes from the history: after a replay every step sees the time it saw first.
-- as: workflow
local time, funcs = require("time"), require("funcs")

return function()
  local times, recorded = {}, {}
  for i = 1, 4 do
    times[i] = time.now():unix_nano()
    recorded[i] = funcs.call("lua.support:fn.echo", times[i])
  end
  check.equal(recorded, times)
end
