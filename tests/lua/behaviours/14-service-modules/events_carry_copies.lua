-- 3.4 An event's data is a copy, for each subscriber another.
local events = require("events")

return function()
  local system = check.unique("sys")
  local a, b = events.subscribe(system), events.subscribe(system)
  local data = { list = { 1 }, err = errors.new{ message = "no", kind = "Conflict" } }
  events.send(system, "n", "/", data)
  data.list[1] = 2
  local got = check.receive(a:channel()).data
  check.equal(got.list, { 1 })
  check.error_is(got.err, "Conflict", "no")
  got.list[1] = 3
  check.equal(check.receive(b:channel()).data.list, { 1 })
end
