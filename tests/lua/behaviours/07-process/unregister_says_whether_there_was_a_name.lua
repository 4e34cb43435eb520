-- 5.2 `unregister` gives a boolean: false if the name was not registered.
return function()
  local name = check.unique("gone")
  check.is_false(process.registry.unregister(name))
  process.registry.register(name)
  check.is_true(process.registry.unregister(name))
  check.is_false(process.registry.unregister(name))
  check.fails("NotFound", "name not registered", process.registry.lookup(name))
  check.fails("NotFound", "^could not resolve '", process.send(name, "x"))
end
