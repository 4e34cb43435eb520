-- An order: charge the card, wait until the bank has settled, see how that went, refund when it failed.
--
--   order = { id, card, amount, settle = "24h", approval = false }

local funcs = require("funcs")
local time = require("time")

local function refund(payment, state, reason)
  local receipt, err = funcs.call("app.api:refund", payment)
  if err then
    return nil, err
  end
  return { order_id = payment.order_id, state = state, reason = reason, refund_id = receipt.refund_id }
end

local function main(order)
  local payment = { order_id = order.id, card = order.card, amount = order.amount }

  -- At most once. Should the host of this call die in the middle, nobody here knows whether the card was charged;
  -- the bank does, and is asked below.
  local _, err = funcs.call("app.api:charge_card", payment)
  if err and err:kind() ~= "UnknownOutcome" then
    return { order_id = order.id, state = "declined", reason = err:message() }
  end

  -- A timer of the server. No node needs to be up while it runs.
  time.sleep(order.settle or "24h")

  local status, failed = funcs.call("app.api:check_status", payment)
  if failed then
    return nil, failed
  end
  if status.state == "unpaid" then
    return { order_id = order.id, state = "unpaid" }
  end
  if status.state == "failed" then
    return refund(payment, "refunded", status.reason)
  end

  if order.approval then
    local msg = process.inbox():receive()
    if not msg.approved then
      return refund(payment, "rejected", msg.reason)
    end
  end

  return { order_id = order.id, state = "paid", charge_id = status.charge_id }
end

return { main = main }
