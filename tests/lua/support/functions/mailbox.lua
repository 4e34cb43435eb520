-- Tells its PID to somebody (topic "here"), and gives the topic and value of the first message it gets.
return { main = function(to)
  process.send(to, "here", process.pid())
  local m = process.inbox():receive()
  return { m:topic(), m:payload():data() }
end }
