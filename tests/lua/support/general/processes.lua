-- Processes that answer.
local M = {}

--- Answers every message of its inbox with topic "answer" and {topic =, from =, data =}; "stop" ends it with the body as
--- its result, "fail" with the body raised.
function M.answers()
  local inbox = process.inbox()
  while true do
    local m = inbox:receive()
    local data = m:payload() and m:payload():data()
    if m:topic() == "stop" then return data end
    if m:topic() == "fail" then error(data) end
    process.send(m:from(), "answer", { topic = m:topic(), from = m:from(), data = data })
  end
end

--- Sends what it was given to a unit under topic "report", with its PID, and waits for a message "stop".
function M.reports(to, ...)
  process.send(to, "report", { pid = process.pid(), args = table.pack(...) })
  process.listen("stop"):receive()
end

--- Sends 1 to n to a unit under a topic, then ends.
function M.sends_many(to, topic, n)
  for i = 1, n do process.send(to, topic, i) end
end

return M
