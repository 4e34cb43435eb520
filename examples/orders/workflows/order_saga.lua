-- A saga: three services, no transaction that spans them. Each may say { error = ... }; what was done until then is
-- undone, the latest first.
--
--   order = { id, sku, quantity, card, amount, country }

local funcs = require("funcs")

local STEPS = {
  { name = "reserve", call = "app.inventory:reserve", undo = "app.inventory:release" },
  { name = "charge", call = "app.payments:charge", undo = "app.payments:refund" },
  { name = "ship", call = "app.shipping:create", undo = "app.shipping:cancel" },
}

-- What a service said no with: its own { error = ... }, or the error of a call that is final.
local function refusal(result, err)
  if err then
    return err:message()
  end
  return type(result) == "table" and result.error or nil
end

local function main(order)
  local receipts, done = {}, {}
  for _, step in ipairs(STEPS) do
    local result, err = funcs.call(step.call, order)
    local reason = refusal(result, err)
    -- A charge that may run only once and whose host died may have happened: it is undone like one that did.
    if not reason or (err and err:kind() == "UnknownOutcome") then
      done[#done + 1] = step
    end
    if reason then
      local undone = {}
      for i = #done, 1, -1 do
        local answer, trouble = funcs.call(done[i].undo, order)
        undone[#undone + 1] = { step = done[i].name, error = refusal(answer, trouble) }
      end
      return { order_id = order.id, state = "compensated", failed = step.name, reason = reason, undone = undone }
    end
    receipts[step.name] = result
  end
  return { order_id = order.id, state = "completed", receipts = receipts }
end

return { main = main }
