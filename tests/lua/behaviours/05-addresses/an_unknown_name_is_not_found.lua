-- 5.2 Else `NotFound`, message `could not resolve 'x' as PID or registered name`; for every call (7.3).
return function()
  local name = check.unique("nobody")
  local text = "could not resolve '" .. name:gsub("%-", "%%-") .. "' as PID or registered name"
  check.fails("NotFound", text, process.send(name, "topic"))
  check.fails("NotFound", text, process.cancel(name))
  check.fails("NotFound", text, process.terminate(name))
  check.fails("NotFound", text, process.monitor(name))
  check.fails("NotFound", text, process.unmonitor(name))
  check.fails("NotFound", text, process.link(name))
  check.fails("NotFound", text, process.unlink(name))
end
