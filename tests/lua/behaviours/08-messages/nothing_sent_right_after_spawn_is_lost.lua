-- 8 A mailbox exists from the moment `spawn` returns: nothing sent before the receiver subscribes is lost (trap 15.14).
return function()
  local pid = process.spawn_monitored("lua.support:subscribes_late", "lua.support:processes", "50ms", 5)
  for i = 1, 5 do check.is_true(process.send(pid, "early", i)) end
  check.equal(check.receive(process.events()).result.value, { 1, 2, 3, 4, 5 })
end
