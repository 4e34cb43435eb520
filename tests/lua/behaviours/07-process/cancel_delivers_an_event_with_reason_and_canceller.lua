-- 7.3 `process.cancel` delivers a CANCEL event: who cancelled, when, and why.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  local ok, err = process.cancel(puppet, "no longer needed")
  check.is_true(ok)
  check.is_nil(err)
  local event = puppets.event()
  check.equal(event.kind, process.event.CANCEL)
  check.equal(event.from, process.pid())
  check.equal(event.reason, "no longer needed")
  check.type_is(event.at, "number")
  puppets.tell(puppet, "return")
end
