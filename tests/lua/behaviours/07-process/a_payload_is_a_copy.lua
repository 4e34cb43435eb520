-- 8 A payload is a copy: what the sender changes afterwards does not show.
-- as: process
-- imports: puppets=lua.support:puppets
return function()
  local body = { list = { 1 } }
  process.send(process.pid(), "x", body)
  local pid = process.spawn_monitored("lua.support:collect", "lua.support:processes", 1)
  process.send(pid, "x", body)
  body.list[1] = "changed"
  check.equal(check.receive(process.inbox()):payload():data(), { list = { 1 } })
  check.equal(puppets.exit(pid).value[1].data, { list = { 1 } })
end
