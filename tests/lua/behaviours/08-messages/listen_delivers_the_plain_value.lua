-- 8 `listen` without options delivers the plain value itself: nil, value, or a table of values.
return function()
  local ch = process.listen("plain")
  process.send(process.pid(), "plain", "value")
  process.send(process.pid(), "plain")
  process.send(process.pid(), "plain", 1, 2, 3)
  process.send(process.pid(), "plain", { a = 1 })
  check.equal(check.receive(ch), "value")
  check.equal(table.pack(check.receive(ch)), { n = 2, nil, true })
  check.equal(check.receive(ch), { 1, 2, 3 })
  check.equal(check.receive(ch), { a = 1 })
end
