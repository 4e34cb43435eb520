-- 15 Terminate never asks: no CANCEL is seen, the process is gone, EXIT has the error `process terminated` (trap 10).
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  puppets.watch(puppet)
  local ok, err = process.terminate(puppet)
  check.is_true(ok)
  check.is_nil(err)
  local result = puppets.exit(puppet)
  check.is_nil(result.value)
  check.error_is(result.error, "Internal", "^process terminated$")
  puppets.no_event()
  check.fails("NotFound", "process not found", process.send(puppet, "x"))
end
