-- 9 Monitors are enough to write a supervisor: it starts a new child for each EXIT with an error.
-- as: process
-- imports: puppets=lua.support:puppets
return function()
  local starts, pid = 0, nil
  local function start(last)
    starts = starts + 1
    local entry = last and "lua.support:give" or "lua.support:raise"
    pid = process.spawn_monitored(entry, "lua.support:processes", "run " .. starts)
  end
  start(false)
  while true do
    local result = puppets.exit(pid)
    if not result.error then
      check.equal(result.value, "run 4")
      break
    end
    check.matches(result.error, "run " .. starts .. "$")
    start(starts == 3)
  end
  check.equal(starts, 4)
end
