-- One parcel of an order.

local funcs = require("funcs")

local function main(order_id, number, item)
  local weight, err = funcs.call("app.packing:weigh", item)
  if err then
    return nil, err
  end
  return { parcel = order_id .. "/" .. number, sku = item.sku, grams = weight.grams }
end

return { main = main }
