-- 2.2 A service that falls with a linked process has ended with an error: it is started again.
return function()
  local name, lookup = "lua.support.phoenix", process.registry.lookup
  local pid = check.eventually(function() return lookup(name) end)
  process.monitor(pid)
  process.send(pid, "link")
  check.matches(check.receive(process.events()).result.error, "linked process failed")
  check.eventually(function()
    local now = lookup(name)
    return now ~= nil and now ~= pid
  end)
end
