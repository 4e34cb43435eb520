-- Pack every item of an order in a workflow of its own, all at once, and gather how each of them ended.
--
--   order = { id, items = { { sku, quantity }, ... } }

local function main(order)
  local number_of = {}
  for number, item in ipairs(order.items) do
    local pid, err = process.spawn("app.packing:parcel", "app.packing:worker", order.id, number, item)
    if err then
      return nil, err -- the children that run already end with their parent
    end
    number_of[pid] = number
  end

  -- The end of a child comes as an event, without asking.
  local events = process.events()
  local parcels, failed, grams = {}, {}, 0
  local open = #order.items
  while open > 0 do
    local event = events:receive()
    if event.kind == process.event.EXIT then
      local number = number_of[event.from]
      if event.result.error then
        failed[#failed + 1] = { number = number, reason = event.result.error:message() }
      else
        parcels[number] = event.result.value
        grams = grams + event.result.value.grams
      end
      open = open - 1
    end
  end

  -- In the order of the items, however the children finished.
  local packed = {}
  for number = 1, #order.items do
    packed[#packed + 1] = parcels[number]
  end
  table.sort(failed, function(a, b) return a.number < b.number end)
  return { order_id = order.id, parcels = packed, failed = failed, grams = grams }
end

return { main = main }
