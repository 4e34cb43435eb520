-- 7.3 A terminated function call fails for its caller with `process terminated`.
-- imports: puppets=lua.support:puppets
return function()
  local pid, future = puppets.call()
  puppets.watch(pid)
  check.is_true((process.terminate(pid)))
  check.error_is(puppets.exit(pid).error, "Internal", "^process terminated$")
  check.error_is(check.receive(future:channel()), "Internal", "^process terminated$")
end
