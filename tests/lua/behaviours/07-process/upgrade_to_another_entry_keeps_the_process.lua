-- 7.4 `process.upgrade(id, ...)` puts other code with new arguments under the same PID; names, monitors and links stay.
-- imports: puppets=lua.support:puppets
return function()
  process.set_options{ trap_links = true }
  local name, puppet, upgraded = check.unique("upgraded"), puppets.new(), process.listen("upgraded")
  process.registry.register(name, puppet)
  puppets.watch(puppet)
  process.link(puppet)
  puppets.tell(puppet, "upgrade", "lua.support:sends_upgraded", process.pid(), 1, { n = 1 })
  check.equal(check.receive(upgraded), { id = "lua.support:sends_upgraded", pid = puppet, extra = { n = 1 } })
  check.equal(process.registry.lookup(name), puppet)
  check.nothing(process.events(), "10ms")
  process.send(name, "x", "after")
  check.equal(puppets.exit(puppet).value, { "after" })
end
