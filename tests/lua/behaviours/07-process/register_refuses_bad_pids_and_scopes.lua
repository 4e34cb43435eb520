-- 5.2 A bad PID or scope is `Invalid`.
return function()
  local name = check.unique("bad")
  check.fails("Invalid", nil, process.registry.register(name, "no pid"))
  check.fails("Invalid", nil, process.registry.register(name, "{no bar}"))
  check.fails("Invalid", nil, process.registry.register(name, process.pid(), 4))
  check.fails("Invalid", nil, process.registry.register(name, process.pid(), -1))
  check.is_false(check.fails("Invalid", nil, process.registry.register("", process.pid())):retryable())
  check.fails("NotFound", "name not registered", process.registry.lookup(name))
end
