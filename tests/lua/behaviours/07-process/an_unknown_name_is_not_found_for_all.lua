-- 7.3 An unresolvable name is `NotFound` for cancel, terminate, monitor, unmonitor, link and unlink.
return function()
  local name = check.unique("nobody")
  for _, verb in ipairs({ "cancel", "terminate", "monitor", "unmonitor", "link", "unlink" }) do
    local ok, err = process[verb](name)
    check.is_nil(ok, verb)
    check.error_is(err, "NotFound", "^could not resolve '.*' as PID or registered name$", false)
  end
end
