-- 9 `terminate` is an error, so links break.
-- imports: puppets=lua.support:puppets
return function()
  process.set_options{ trap_links = true }
  local puppet, other = puppets.new(), puppets.new()
  process.link(puppet)
  puppets.ask(other, "link", puppet)
  puppets.watch(other)
  process.terminate(puppet)
  local seen = {}
  for _ = 1, 2 do
    local event = check.receive(process.events())
    seen[event.kind] = event
  end
  check.equal(seen["pid.link.down"].from, puppet)
  check.error_is(seen["pid.link.down"].result.error, "Internal", "^process terminated$")
  check.equal(seen["pid.exit"].from, other)
  check.error_is(seen["pid.exit"].result.error, "Internal", "linked process failed")
end
