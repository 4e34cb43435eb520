-- A child that sends its parent numbered messages, and returns how many.
--
--   echo = { index, messages, ms, parent }

local time = require("time")

local function main(echo)
  for n = 1, echo.messages do
    local sent, err = process.send(echo.parent, "said", { index = echo.index, n = n })
    if not sent then
      return nil, err
    end
    if n % 3 == 0 then
      time.sleep(echo.ms .. "ms")
    end
  end
  return { value = echo.messages }
end

return { main = main }
