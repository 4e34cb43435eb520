-- 9 `monitor` twice gives the error `already monitoring pid`, and still one EXIT.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  check.is_true((process.monitor(puppet)))
  local err = check.fails("Internal", "already monitoring pid", process.monitor(puppet))
  check.is_false(err:retryable())
  puppets.tell(puppet, "return")
  puppets.exit(puppet)
  check.nothing(process.events(), "20ms")
end
