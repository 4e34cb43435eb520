-- 7.3 `process.monitor` gives true, and EXIT of the process comes as an event.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  local ok, err = process.monitor(puppet)
  check.is_true(ok)
  check.is_nil(err)
  puppets.tell(puppet, "return", { n = 1 })
  check.equal(puppets.exit(puppet), { value = { n = 1 } })
end
