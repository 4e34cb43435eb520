-- 11.4 Tickers are durable timers, too.
-- as: workflow
local time = require("time")

return function()
  local ticker, last = time.ticker("15ms"), nil
  for _ = 1, 4 do
    local at = check.receive(ticker:channel(), "20s")
    check.is_true(last == nil or at:after(last))
    last = at
  end
  check.is_true(ticker:stop())
end
