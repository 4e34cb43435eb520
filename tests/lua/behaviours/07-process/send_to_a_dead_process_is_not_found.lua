-- 7.3 `process.send` to a process that has ended: `NotFound`, `process not found`.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:give", "lua.support:processes", 1)
  puppets.exit(pid)
  local err = check.fails("NotFound", "process not found", process.send(pid, "x", 1))
  check.is_false(err:retryable())
end
