local M = {}

--- Takes names of a scope, says so under topic "named" with the outcomes, and waits for a message "stop".
function M.names_itself(to, scope, ...)
  local outcomes = {}
  for i, name in ipairs{ ... } do
    local ok, err = process.registry.register(name, scope)
    outcomes[i] = ok or err
  end
  process.send(to, "named", outcomes)
  process.listen("stop"):receive()
end

--- The PID of a name here, or why there is none.
function M.looks_up(name)
  return process.registry.lookup(name)
end

--- Takes a name away.
function M.unregisters(name, scope)
  return process.registry.unregister(name, scope)
end

--- Its entry ID, and PIDs as it sees them at its start and after waiting.
function M.says_who()
  local before = process.pid()
  local inbox = process.inbox()
  process.send(before, "ping")
  inbox:receive()
  return { id = process.id(), before = before, after = process.pid() }
end

return M
