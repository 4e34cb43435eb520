-- The rules of the shop, in front of the shelf. Two functions from one file.

local funcs = require("funcs")

local PIECES_MAX = 10

local function reserve(order)
  if order.quantity > PIECES_MAX then
    return { error = "we sell at most " .. PIECES_MAX .. " of a kind" }
  end
  return funcs.call("app.inventory:put_aside", order.id, order.sku, order.quantity)
end

local function release(order)
  return funcs.call("app.inventory:put_back", order.id)
end

return { reserve = reserve, release = release }
