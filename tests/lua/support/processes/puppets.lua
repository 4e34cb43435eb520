-- `puppets`: what behaviours use to let other processes and function calls do something (puppet.lua).
--
--   puppets.new([way])             PID of a new process that is a puppet of the caller's
--   puppets.call([way])            PID and Future of a call of a function that is one
--   puppets.ask(pid, verb, ...)    what process[verb](...) gives there
--   puppets.tell(pid, verb, ...)   the same, not waiting: for "return" and "fail"
--   puppets.event()                the next lifecycle event of any puppet of the caller's
--   puppets.no_event()             there is none
--   puppets.watch(pid)             monitor it
--   puppets.exit(pid)              wait for its EXIT, which has to be the caller's next event; gives back `result`
local funcs = require("funcs")
local puppets = {}

function puppets.new(way)
  local pid, err = process.spawn("lua.support:puppet", "lua.support:processes", process.pid(), way)
  if not pid then error(err) end
  return pid
end

function puppets.call(way)
  local seen = { shows = true }
  for key, value in pairs(way or {}) do seen[key] = value end
  local here = process.listen("here")
  local future = funcs.async("lua.support:puppet_call", process.pid(), seen)
  return check.receive(here), future
end

function puppets.tell(pid, verb, ...)
  local sent, err = process.send(pid, verb, { ... })
  if not sent then error(err) end
end

function puppets.ask(pid, verb, ...)
  local answers = process.listen("answer")
  puppets.tell(pid, verb, ...)
  local answer = check.receive(answers)
  return answer.value, answer.err
end

function puppets.event()
  return (check.receive(process.listen("event")))
end

function puppets.no_event()
  check.nothing(process.listen("event"))
end

function puppets.watch(pid)
  local ok, err = process.monitor(pid)
  if not ok then error(err) end
end

function puppets.exit(pid)
  local event = check.receive(process.events())
  if event.kind ~= process.event.EXIT or event.from ~= pid then
    error("got " .. check.shown(event) .. ", wanted the EXIT of " .. pid, 2)
  end
  return event.result
end

return puppets
