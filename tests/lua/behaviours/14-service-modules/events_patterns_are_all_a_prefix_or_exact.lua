-- 14.3 `system` and `kind` patterns: absent/`"*"` = all, a trailing `*` = prefix, else exact.
local events = require("events")

return function()
  local system = check.unique("sys")
  local subs = {
    all = events.subscribe(system), star = events.subscribe(system, "*"), prefix = events.subscribe(system, "order.*"),
    exact = events.subscribe(system, "order.paid"), systems = events.subscribe(system:sub(1, -3) .. "*", "order.paid"),
    everything = events.subscribe("*", "order.paid"), other = events.subscribe(system .. "x"),
  }
  for _, kind in ipairs{ "order.paid", "order.gone", "user.new", "order" } do
    check.is_true(events.send(system, kind, "/"))
  end
  for name, wanted in pairs{
    all = { "order.paid", "order.gone", "user.new", "order" }, star = { "order.paid", "order.gone", "user.new", "order" },
    prefix = { "order.paid", "order.gone" }, exact = { "order.paid" }, systems = { "order.paid" },
    everything = { "order.paid" }, other = {},
  } do
    local kinds = {}
    for i = 1, #wanted do kinds[i] = check.receive(subs[name]:channel()).kind end
    check.equal(kinds, wanted, name)
  end
  for name, sub in pairs(subs) do
    check.nothing(sub:channel(), "1ms")
    sub:close()
  end
end
