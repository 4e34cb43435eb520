-- 7.3 A topic that starts with `@` gives `nil, Invalid`; one that has it elsewhere is fine.
return function()
  local err = check.fails("Invalid", nil, process.send(process.pid(), "@x", 1))
  check.is_false(err:retryable())
  check.is_true((process.send(process.pid(), "x@y", 1)))
  check.equal(check.receive(process.inbox()):topic(), "x@y")
end
