-- Registers a name and rises again: answers "ask" with its PID and arguments, returns an error on "fail", links a
-- process that fails on "link", and returns when its service is stopped, so that a node need not wait for it.
--   name   a mesh-wide name
return { main = function(name, ...)
  local ok, err = process.registry.register(name, process.pid(), process.registry.CONSISTENT)
  if not ok then return nil, err end
  local inbox, events = process.inbox(), process.events()
  while true do
    local r = channel.select{ inbox:case_receive(), events:case_receive() }
    if r.channel == events then return end
    local message = r.value
    if message:topic() == "fail" then
      return nil, errors.new{ message = "told to fail", kind = errors.UNAVAILABLE }
    end
    if message:topic() == "link" then process.spawn_linked("lua.support:raise", "lua.support:processes", "no") end
    process.send(message:from(), "phoenix", { pid = process.pid(), args = { ... } })
  end
end }
