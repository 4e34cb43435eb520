-- 3.1 An error that nobody catches ends the unit; one that is caught does not.
local time = require("time")

return function()
  local done = channel.new(1)
  coroutine.spawn(function()
    done:send({ pcall(error, "caught", 0) })
  end)
  check.equal(check.receive(done), { false, "caught" })
  local co = coroutine.create(function()
    time.sleep("1ms")
    error("in a coroutine that somebody resumes", 0)
  end)
  check.equal({ coroutine.resume(co) }, { false, "in a coroutine that somebody resumes" })
  local text
  xpcall(function() error("handled", 0) end, function(e) text = e end)
  check.equal(text, "handled")
end
