-- 11.4 Coroutines of a workflow call and sleep at the same time, and talk over channels.
-- as: workflow
local time, funcs = require("time"), require("funcs")

return function()
  local results = channel.new(10)
  for i = 1, 5 do
    coroutine.spawn(function()
      if i % 2 == 0 then time.sleep(i .. "ms") end
      results:send({ i, (funcs.call("lua.support:fn.echo", i * i)) })
    end)
  end
  local got = {}
  for _ = 1, 5 do
    local result = check.receive(results, "20s")
    got[result[1]] = result[2]
  end
  check.equal(got, { 1, 4, 9, 16, 25 })
end
