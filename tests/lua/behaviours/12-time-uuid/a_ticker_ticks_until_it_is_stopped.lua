-- 12.1 `time.ticker(dur)` → Ticker, `response()` = `channel()`; `:stop()` → true, closes.
local time = require("time")

return function()
  local before = time.now()
  local ticker = time.ticker("5ms")
  check.is_true(ticker:response() == ticker:channel())
  local last = before
  for _ = 1, 3 do
    local at = check.receive(ticker:channel())
    check.is_true(at:after(last))
    last = at
  end
  check.is_true(last:sub(before):milliseconds() >= 15)
  check.is_true(ticker:stop())
  check.eventually(function() return select(2, ticker:channel():receive()) == false end, "closed")
  check.is_true(ticker:stop())
end
