-- 3.1 While main waits, the other coroutines of a process run.
return function()
  local alive = process.listen("alive")
  local pid = process.spawn("lua.support:coroutines", "lua.support:processes", "tell", process.pid())
  check.receive(alive, "2s")
  process.send(pid, "end")
end
