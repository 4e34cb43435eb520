-- 2.2 A service whose process is terminated has ended with an error that says nothing of retrying: it is started again.
return function()
  local name, lookup = "lua.support.phoenix", process.registry.lookup
  local pid = check.eventually(function() return lookup(name) end)
  process.terminate(pid)
  check.eventually(function()
    local now = lookup(name)
    return now ~= nil and now ~= pid
  end)
end
