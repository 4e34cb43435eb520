-- 6.3 `coroutine.spawn(fn)`: `fn()` without arguments; returns the thread.
return function()
  local done = channel.new(1)
  local thread = coroutine.spawn(function(...) done:send(select("#", ...)) end)
  check.type_is(thread, "thread")
  check.equal(check.receive(done), 0)
  check.equal(coroutine.status(thread), "dead")
end
