-- 7.3 Errors of cancel, terminate, monitor and link have kind `Internal` and are not retryable.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:give", "lua.support:processes", 1)
  puppets.exit(pid)
  for _, verb in ipairs({ "cancel", "terminate", "monitor", "link" }) do
    local ok, err = process[verb](pid)
    check.is_nil(ok, verb)
    check.error_is(err, "Internal", verb == "monitor" and "pid not registered" or verb == "link" and "pid not registered", false)
  end
end
