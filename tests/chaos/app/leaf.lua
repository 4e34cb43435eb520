-- A child that works, sleeps and returns twice its value, or is declined.
--
--   leaf = { id, index, seed, ms, value, decline }

local time = require("time")
local uuid = require("uuid")
local workflow = require("workflow")
local calls = require("calls")

local function main(leaf)
  local about = { workflow = workflow.info().workflow_id, key = uuid.v4(), seed = leaf.seed }
  local answer, err = calls.call("chaos:work", about, {
    name = "leaf", ms = leaf.ms, value = leaf.value, decline = leaf.decline,
  })
  if err then
    return nil, err
  end
  time.sleep((leaf.ms or 0) .. "ms")
  return { id = leaf.id, key = about.key, value = 2 * answer.value, tokens = { leaf = answer.token } }
end

return { main = main }
