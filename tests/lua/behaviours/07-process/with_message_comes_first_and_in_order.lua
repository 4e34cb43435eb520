-- 7.2 Queued messages are delivered first, in order; their sender on a process host is "".
return function()
  local pid = process.with_options{}:with_message("a", 1):with_message("b", 2):with_message("a", 3)
    :spawn_monitored("lua.support:collect", "lua.support:processes", 4, "10ms")
  process.send(pid, "c", 4)
  check.equal(check.receive(process.events()).result.value, {
    { topic = "a", from = "", data = 1 },
    { topic = "b", from = "", data = 2 },
    { topic = "a", from = "", data = 3 },
    { topic = "c", from = process.pid(), data = 4 },
  })
end
