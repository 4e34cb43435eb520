-- Waits for what comes first: the topic "done" (gives its value), "fail" (fails with that specification), or an event
-- (gives it). Another topic is answered with its own topic and value to whoever sent it. `input` is answered to "input?".
local workflow = require("workflow")
return { main = function(input)
  local events, inbox = process.events(), process.inbox()
  while true do
    local r = channel.select{ events:case_receive(), inbox:case_receive() }
    if r.channel == events then return r.value end
    local m, value = r.value, nil
    if m:payload() then value = m:payload():data() end
    if m:topic() == "done" then return value end
    if m:topic() == "fail" then return nil, errors.new(value) end
    if m:topic() == "input?" then value = input end
    if m:topic() == "info?" then value = workflow.info() end
    process.send(m:from(), m:topic(), value)
  end
end }
