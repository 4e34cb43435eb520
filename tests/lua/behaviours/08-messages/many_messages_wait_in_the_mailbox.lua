-- 7.3 Messages wait in the mailbox, which is not bounded for a process.
return function()
  local n = 2000
  local pid = process.spawn_monitored("lua.support:gathers", "lua.support:processes")
  for i = 1, n do process.send(pid, "item", i) end
  process.send(pid, "done")
  local got = check.receive(process.events(), "20s").result.value
  check.equal(#got, n)
  for i = 1, n do
    if got[i] ~= i then check.fail("item " .. i .. " is " .. check.shown(got[i])) end
  end
end
