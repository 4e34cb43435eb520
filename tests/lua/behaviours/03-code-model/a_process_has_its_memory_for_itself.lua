-- 3.1 Process: one VM, cooperative coroutines, private memory.
return function()
  local host = "lua.support:processes"
  local one, other = process.spawn("lua.support:private", host), process.spawn("lua.support:private", host)
  local counts = process.listen("counts")
  process.send(one, "count")
  check.receive(counts)
  process.send(one, "count")
  local got = check.receive(counts)
  check.equal({ got[1], got[2] }, { 2, 2 })
  process.send(other, "count")
  got = check.receive(counts)
  check.equal({ got[1], got[2] }, { 1, 1 })
  process.send(one, "stop")
  process.send(other, "stop")
end
