-- 8 Each message goes to the listener of its exact topic; else to the inbox.
return function()
  local pid = process.spawn_monitored("lua.support:routes", "lua.support:processes", "item")
  for _, topic in ipairs{ "item", "items", "item.sub", "ITEM", "item" } do process.send(pid, topic, topic) end
  process.send(pid, "done")
  check.equal(check.receive(process.events()).result.value, {
    listener = { "item", "item" }, inbox = { "items", "item.sub", "ITEM" },
  })
end
