-- Starts wf.wait under these options, says its PID to somebody (topic "child") and waits for a message before it ends.
return { main = function(options, to)
  local pid, err = process.with_options(options):spawn("lua.support:wf.wait", "lua.support:worker")
  if err then return nil, err end
  process.send(to, "child", pid)
  process.inbox():receive()
  return "over"
end }
