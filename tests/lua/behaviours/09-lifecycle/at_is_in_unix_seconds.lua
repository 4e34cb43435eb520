-- 15 `at` is a number of Unix seconds outside workflows (trap 15).
-- imports: puppets=lua.support:puppets
local time = require("time")

return function()
  process.set_options{ trap_links = true }
  process.spawn_linked_monitored("lua.support:raise", "lua.support:processes", "no")
  process.cancel(process.pid())
  for _ = 1, 3 do
    local event = check.receive(process.events())
    check.type_is(event.at, "number")
    check.is_true(math.abs(event.at - time.now():unix()) < 30, event.kind)
  end
end
