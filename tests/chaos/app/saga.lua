-- A saga: steps one after the other, each with a compensation. When one is declined, or somebody asks to stop, what was
-- done is undone, the last one first.
--
--   saga = { id, seed, steps = {{name, ms, flaky, once, decline}}, pace_ms, undo_ms, raise }

local time = require("time")
local uuid = require("uuid")
local calls = require("calls")

local function main(saga)
  local about = { workflow = saga.id, key = uuid.v4(), seed = saga.seed }
  local done, undone, tokens, states = {}, {}, {}, {}
  local state, why = "completed", nil
  local events = process.events()

  for _, step in ipairs(saga.steps) do
    -- A moment in which somebody may ask to stop.
    local pause = time.after(saga.pace_ms .. "ms")
    local ready = channel.select{ events:case_receive(), pause:case_receive() }
    if ready.channel == events and ready.value.kind == process.event.CANCEL then
      state, why = "canceled", "asked to stop"
      break
    end
    local id = step.once and "chaos:once" or "chaos:work"
    local answer, err = calls.call(id, about, {
      name = step.name, ms = step.ms, flaky = step.flaky, decline = step.decline,
    })
    if err and not calls.is_unknown(err) then
      state, why = "compensated", err:kind()
      break
    end
    -- What may have been done has to be undone, too.
    done[#done + 1] = step.name
    if err then
      state, why = "compensated", err:kind()
      break
    end
    tokens[step.name] = answer.token
  end

  if state ~= "completed" then
    for i = #done, 1, -1 do
      local name = "undo:" .. done[i]
      local answer, err = calls.call("chaos:work", about, { name = name, ms = saga.undo_ms, seen = tokens })
      if err then
        return nil, err
      end
      undone[#undone + 1] = done[i]
      tokens[name] = answer.token
    end
  end
  local story = {
    id = saga.id, key = about.key, state = state, why = why, done = done, undone = undone, tokens = tokens,
  }
  if state == "compensated" and saga.raise then
    return nil, errors.new{ message = "the saga was undone", kind = "Conflict", retryable = false, details = story }
  end
  return story
end

return { main = main }
