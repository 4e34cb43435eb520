-- Wait for somebody's decision, but not for ever.
--
--   request = { subject, deadline = "24h" }
--
--   nats pub mesh.wf.orders.<id>.signal.approve '{"approved": true, "by": "you"}'

local time = require("time")

local function main(request)
  local inbox = process.inbox()
  local deadline = time.after(request.deadline or "24h")

  while true do
    local ready = channel.select({ inbox:case_receive(), deadline:case_receive() })
    if ready.channel == deadline then
      return { subject = request.subject, state = "expired" }
    end

    local msg = ready.value
    -- The fields of the body read straight through; msg:payload():data() is the body as a whole.
    -- A message that decides nothing is passed over.
    if type(msg.approved) == "boolean" then
      return {
        subject = request.subject,
        state = msg.approved and "approved" or "rejected",
        by = msg.by,
        decision = msg:payload():data(),
      }
    end
  end
end

return { main = main }
