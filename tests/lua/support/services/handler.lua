-- Handles a message of a queue: { reply = PID, topic?, settle? = { "ack" | "nack", ... }, wait_ms?, fails? = text }.
-- It tells `reply` the message and what settling it came to, waits, tells it again under `<topic>.end`, and fails if it
-- is asked to.
local queue, time = require("queue"), require("time")

return function(body)
  local message = assert(queue.message())
  local settled = {}
  for i, how in ipairs(body.settle or {}) do
    local ok, err = message[how](message)
    settled[i] = ok or err
  end
  local topic = body.topic or "handled"
  process.send(body.reply, topic, {
    body = body, id = message:id(), headers = message:headers(), trace = message:header("trace"), settled = settled,
  })
  if body.wait_ms then
    time.sleep(body.wait_ms * time.MILLISECOND)
    process.send(body.reply, topic .. ".end", body)
  end
  if body.fails then return nil, body.fails end
end
