-- 7.4 Messages that waited in channels of the old code, those of `listen` too, stay in the mailbox, in order.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:upgrades_unread", "lua.support:processes", "lua.support:collect", 5)
  for i, topic in ipairs({ "plain", "message", "inbox", "plain", "inbox" }) do process.send(pid, topic, i) end
  process.send(pid, "go")
  local order = {}
  for i, message in ipairs(puppets.exit(pid).value) do order[i] = message.data end
  check.equal(order, { 1, 2, 3, 4, 5 })
end
