-- 8 A message goes to the listener of its exact topic, else to the inbox.
return function()
  local me, order, inbox = process.pid(), process.listen("order"), process.inbox()
  for i, topic in ipairs({ "order", "orders", "Order", "order", "order.new" }) do process.send(me, topic, i) end
  check.equal(check.receive(order), 1)
  check.equal(check.receive(order), 4)
  local topics = {}
  for i = 1, 3 do topics[i] = check.receive(inbox):topic() end
  check.equal(topics, { "orders", "Order", "order.new" })
  check.nothing(inbox, "10ms")
  check.nothing(order, "10ms")
end
