-- 6.3 Any blocking call works inside.
local time = require("time")
local funcs = require("funcs")

return function()
  local done = channel.new(4)
  coroutine.spawn(function()
    time.sleep("1ms")
    done:send("slept")
  end)
  coroutine.spawn(function() done:send(funcs.call("lua.support:echo", "called")) end)
  coroutine.spawn(function() done:send(process.exec("lua.support:looks_up", "lua.support:processes", "nobody at all") or "executed") end)
  coroutine.spawn(function() done:send(channel.select{ time.after("1ms"):case_receive() }.ok and "selected") end)
  local got = {}
  for i = 1, 4 do got[i] = check.receive(done) end
  table.sort(got)
  check.equal(got, { "called", "executed", "selected", "slept" })
end
