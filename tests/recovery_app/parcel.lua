-- The child of an order.

local funcs = require("funcs")
local time = require("time")

local function main(order_id, key)
  local weight, err = funcs.call("shop:weigh", { order_id = order_id, key = key })
  if err then
    return nil, err
  end
  time.sleep("50ms")
  return { grams = weight.grams }
end

return { main = main }
