-- 7.4 Unread messages keep their sender over an upgrade, also those that waited for a plain `listen`.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:upgrades_unread", "lua.support:processes", "lua.support:collect", 3)
  for i, topic in ipairs({ "plain", "message", "inbox" }) do process.send(pid, topic, i) end
  process.send(pid, "go")
  check.equal(puppets.exit(pid).value, {
    { topic = "plain", from = process.pid(), data = 1 },
    { topic = "message", from = process.pid(), data = 2 },
    { topic = "inbox", from = process.pid(), data = 3 },
  })
end
