-- 7.3 `process.send` gives `true, nil`; the receiver gets topic, sender and payload.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:collect", "lua.support:processes", 1)
  local ok, err = process.send(pid, "hello", { a = 1 })
  check.is_true(ok)
  check.is_nil(err)
  check.equal(puppets.exit(pid).value, { { topic = "hello", from = process.pid(), data = { a = 1 } } })
end
