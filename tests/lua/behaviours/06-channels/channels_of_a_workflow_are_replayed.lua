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
  check.equal(channel.select{ ch:case_receive(), default = true }, { default = true, ok = true })
  -- Each coroutine's own in their order; timers that are due are told of in any.
  for i = 1, 3 do
    local own = {}
    for _, what in ipairs(order) do
      if what:sub(1, 1) == tostring(i) then own[#own + 1] = what end
    end
    check.equal(own, { i .. ".1", i .. ".2" })
  end
end
