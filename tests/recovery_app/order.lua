-- An order with everything that recovery is about: a call that may run only once, a durable sleep, a check, a child,
-- a signal, a refund.
--
--   order = { id, settle = "200ms" }

local funcs = require("funcs")
local time = require("time")
local uuid = require("uuid")

local function main(order)
  -- The same in every replay, or the functions would see more than one key.
  local key = uuid.v4()
  local payment = { order_id = order.id, key = key }
  local story = { order_id = order.id, key = key }

  local charge, err = funcs.call("shop:charge", payment)
  if err and err:kind() ~= "UnknownOutcome" then
    return nil, err
  end
  story.charge = err and "unknown" or charge.state

  local before = time.now()
  time.sleep(order.settle)
  story.slept = time.now():sub(before):milliseconds() >= time.parse_duration(order.settle):milliseconds()

  local status, failed = funcs.call("shop:status", payment)
  if failed then
    return nil, failed
  end
  story.status = status.state

  local pid, refused = process.spawn("shop:parcel", "shop:worker", order.id, key)
  if refused then
    return nil, refused
  end
  local exit = process.events():receive()
  story.exit_of_child = exit.kind == process.event.EXIT and exit.from == pid
  story.parcel = exit.result.value

  local message = process.inbox():receive()
  story.approved_by = message.by

  if status.state == "failed" then
    local receipt, trouble = funcs.call("shop:refund", payment)
    if trouble then
      return nil, trouble
    end
    story.refund = receipt.state
  end
  return story
end

return { main = main }
