-- 3.1 Blocking calls such as `time.sleep` suspend only the calling coroutine.
local time = require("time")

return function()
  local done = channel.new(3)
  for _, ms in ipairs{ 30, 10, 20 } do
    coroutine.spawn(function()
      time.sleep(ms * time.MILLISECOND)
      done:send(ms)
    end)
  end
  check.equal({ (check.receive(done)), (check.receive(done)), (check.receive(done)) }, { 10, 20, 30 })
end
