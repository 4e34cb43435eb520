-- A long-lived one: counts numbered signals, works and sleeps now and then, goes on as a new run after every `each` of
-- them, ends when told. What it has not read by then, the next run reads.
--
--   counter = { id, seed, each, sleep_ms, received, runs }

local time = require("time")
local uuid = require("uuid")
local calls = require("calls")

local function main(counter)
  local about = { workflow = counter.id, key = uuid.v4(), seed = counter.seed }
  local received, runs, tokens = counter.received or {}, (counter.runs or 0) + 1, {}
  local inbox = process.inbox()
  local here = 0
  while true do
    local message = inbox:receive():payload():data()
    if message.last then
      return { id = counter.id, key = about.key, received = received, runs = runs, tokens = tokens }
    end
    received[#received + 1] = { message.sender, message.n }
    here = here + 1
    if here % 5 == 0 then
      local name = "count:" .. runs .. ":" .. here
      local answer, err = calls.call("chaos:work", about, { name = name, ms = 5 })
      if err then
        return nil, err
      end
      tokens[name] = answer.token
    elseif here % 7 == 0 then
      time.sleep(counter.sleep_ms .. "ms")
    end
    if here == counter.each then
      process.upgrade(nil, {
        id = counter.id, seed = counter.seed, each = counter.each, sleep_ms = counter.sleep_ms,
        received = received, runs = runs,
      })
    end
  end
end

return { main = main }
