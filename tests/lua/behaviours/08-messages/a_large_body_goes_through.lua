-- 8 A message is one, however large its body is, within what the server takes.
return function()
  local pid = process.spawn("lua.support:relays", "lua.support:processes", process.pid())
  local body = string.rep("0123456789", 50000)
  check.is_true(process.send(pid, "large", body))
  check.is_true(check.receive(process.listen("large")) == body)
  process.send(pid, "stop")
end
