-- 7.3 `process.send` to a dead process: `NotFound`, `process not found`, not retryable.
return function()
  local pid = process.spawn_monitored("lua.support:sends_many", "lua.support:processes", process.pid(), "x", 0)
  check.equal(check.receive(process.events()).from, pid)
  local err = check.fails("NotFound", "process not found", process.send(pid, "anybody"))
  check.is_false(err:retryable())
end
