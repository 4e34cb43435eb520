-- 7.3 The reason of `process.cancel` may be left out.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  process.cancel(puppet)
  local event = puppets.event()
  check.equal(event.kind, process.event.CANCEL)
  check.is_nil(event.reason)
  puppets.tell(puppet, "return")
end
