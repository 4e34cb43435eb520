-- 5.2 `unregister(name)`: boolean, false if it was not registered.
return function()
  local name = check.unique("short")
  check.is_false((process.registry.unregister(name)))
  process.registry.register(name)
  check.is_true((process.registry.unregister(name)))
  check.is_false((process.registry.unregister(name)))
  check.fails("NotFound", nil, process.registry.lookup(name))
end
