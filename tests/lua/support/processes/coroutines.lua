-- A process with a second coroutine, which after a moment does what `what` says, while main waits for a message.
--   what    "fail": raises "the coroutine says no"; "tell": sends "alive" to the owner
--   owner   a PID
--   ends    main does not wait but returns at once
local time = require("time")

return { main = function(what, owner, ends)
  coroutine.spawn(function()
    time.sleep("20ms")
    if what == "fail" then error("the coroutine says no") end
    process.send(owner, "alive")
  end)
  if ends then return "main has returned" end
  process.inbox():receive()
end }
