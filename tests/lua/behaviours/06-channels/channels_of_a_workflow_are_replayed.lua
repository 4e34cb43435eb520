-- 11.4 Channels, coroutines and `select` in a workflow: pure, replayed; the order is the same after a takeover.
-- as: workflow
local time = require("time")

return function()
  local ch, order = channel.new(2), {}
  for i = 1, 3 do
    coroutine.spawn(function()
      for step = 1, 2 do
        time.sleep(10 * i * time.MILLISECOND)
        ch:send(i .. "." .. step)
      end
    end)
  end
  for _ = 1, 6 do order[#order + 1] = (ch:receive()) end
  local seen = {}
  for _, what in ipairs(order) do seen[what] = true end
  for i = 1, 3 do
    for step = 1, 2 do check.is_true(seen[i .. "." .. step]) end
  end
  check.equal(channel.select{ ch:case_receive(), default = true }, { default = true, ok = true })
  check.equal(order[1], "1.1")
end
