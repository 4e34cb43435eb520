-- Whether the bank has settled a payment: what its books say, in the words of an order.

local funcs = require("funcs")

local function check_status(payment)
  local entry, err = funcs.call("app.payments:look_up", payment.order_id)
  if err then
    return nil, err
  end
  if not entry then
    return { state = "unpaid" }
  end
  if entry.bounced then
    return { state = "failed", charge_id = entry.charge_id, reason = entry.bounced }
  end
  return { state = "settled", charge_id = entry.charge_id }
end

return { check_status = check_status }
