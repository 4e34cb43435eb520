-- What a number of pieces weighs. A pure function: in, out.

local GRAMS = { lamp = 850, chair = 4200, teapot = 640 }

local function weigh(item)
  local grams = GRAMS[item.sku]
  if not grams then
    return nil, errors.new({
      message = "nobody knows what a " .. tostring(item.sku) .. " weighs",
      kind = errors.NOT_FOUND,
      retryable = false, -- it will not be known a second later either
    })
  end
  return { sku = item.sku, grams = grams * item.quantity }
end

return { weigh = weigh }
