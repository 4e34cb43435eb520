-- 3.1 A blocking call suspends the calling coroutine; one that code made itself and resumes may wait too.
local time = require("time")

return function()
  local co = coroutine.create(function()
    time.sleep("5ms")
    coroutine.yield("slept")
    return "done"
  end)
  check.equal({ coroutine.resume(co) }, { true, "slept" })
  check.equal({ coroutine.resume(co) }, { true, "done" })
end
