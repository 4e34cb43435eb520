-- 14.3 Event = `{system, kind, path, data}`, plain fields.
local events = require("events")

return function()
  local system = check.unique("shop")
  local sub = assert(events.subscribe(system))
  check.is_true(events.send(system, "order.paid", "/orders/1", { total = 5 }))
  check.equal(check.receive(sub:channel()),
    { system = system, kind = "order.paid", path = "/orders/1", data = { total = 5 } })
  check.is_true(events.send(system, "order.gone", "/orders/1"))
  check.equal(check.receive(sub:channel()), { system = system, kind = "order.gone", path = "/orders/1" })
  sub:close()
end
