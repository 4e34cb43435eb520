-- Leaves a global and a coroutine that would tell the owner "alive" behind, and upgrades to sends_upgraded.
local time = require("time")

return { main = function(owner)
  leftover = "of the old code"
  coroutine.spawn(function()
    time.sleep("20ms")
    process.send(owner, "alive")
  end)
  time.sleep("1ms")
  process.upgrade("lua.support:sends_upgraded", owner, 1)
end }
