-- An order: a price that needs retries, a charge that happens at most once, a sleep, items reserved side by side, a
-- stamp from a service that answers twice, a letter, and a confirmation that says which answers the order believed in.
--
--   order = { id, seed, price, price_flaky, charge_ms, decline, settle_ms, items = {{name, ms, flaky, value}}, stamp,
--             letter, retry_late, hold_ms, bulk_kb }

local time = require("time")
local uuid = require("uuid")
local calls = require("calls")

-- Reserve all items at once; returns them in the order in which they were done.
local function reserve(about, items, tokens)
  local done = channel.new(0)
  for _, item in ipairs(items) do
    coroutine.spawn(function()
      local id = item.light and "chaos:light" or "chaos:work"
      local answer, err = calls.call(id, about, {
        name = "reserve:" .. item.name, ms = item.ms, flaky = item.flaky, value = item.value,
      })
      done:send({ name = item.name, answer = answer, err = err })
    end)
  end
  local arrived, total = {}, 0
  local ticker = time.ticker("1s")
  while #arrived < #items do
    local ready = channel.select{ done:case_receive(), ticker:response():case_receive() }
    if ready.channel == done then
      local one = ready.value
      if one.err then
        return nil, nil, one.err
      end
      arrived[#arrived + 1] = one.name
      tokens["reserve:" .. one.name] = one.answer.token
      total = total + one.answer.value
    end
  end
  ticker:stop()
  return arrived, total
end

local function main(order)
  -- The same in every replay, or the functions would see more than one key.
  local about = { workflow = order.id, key = uuid.v4(), seed = order.seed }
  local story = { id = order.id, key = about.key, tokens = {} }
  local tokens = story.tokens

  local pricing = order.retry_late and "chaos:slow_retry" or "chaos:work"
  local price, err = calls.call(pricing, about, { name = "price", value = order.price, flaky = order.price_flaky })
  if err then
    return nil, err
  end
  tokens.price = price.token
  story.price = price.value

  local charge, refused = calls.call("chaos:once", about, {
    name = "charge", ms = order.charge_ms, value = price.value, decline = order.decline,
  })
  if refused and not calls.is_unknown(refused) then
    return nil, refused
  end
  story.charge = refused and "unknown" or "charged"
  if charge then
    tokens.charge = charge.token
  end

  local before = time.now()
  time.sleep(order.settle_ms .. "ms")
  story.slept_ms = time.now():sub(before):milliseconds()

  local arrived, total, trouble = reserve(about, order.items, tokens)
  if trouble then
    return nil, trouble
  end
  story.arrived, story.total = arrived, total

  if (order.bulk_kb or 0) > 0 then
    -- More than a message may hold: request, outcome and result go through an object store.
    local bulk, lost = calls.call("chaos:work", about, { name = "bulk", bulk = string.rep("bulk", order.bulk_kb * 256) })
    if lost then
      return nil, lost
    end
    tokens.bulk = bulk.token
    story.bulk = bulk.bulk
  end

  if order.stamp then
    local funcs = require("funcs")
    local stamp, lost = funcs.call("chaos:stamp", { workflow = order.id, key = about.key })
    if lost then
      return nil, lost
    end
    tokens.stamp = stamp.token
  end
  if order.letter then
    local funcs = require("funcs")
    local _, lost = funcs.call("chaos:mail", { workflow = order.id, key = about.key })
    if lost then
      return nil, lost
    end
    story.letter = true
  end
  -- Time in which the order's owner can be lost: whoever takes over must come to the same tokens.
  time.sleep(order.hold_ms .. "ms")

  local confirmed, unconfirmed = calls.call("chaos:work", about, { name = "confirm", seen = tokens })
  if unconfirmed then
    return nil, unconfirmed
  end
  tokens.confirm = confirmed.token
  return story
end

return { main = main }
