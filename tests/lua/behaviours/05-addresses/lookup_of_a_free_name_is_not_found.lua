-- 5.2 `lookup(name)`: `nil, NotFound` (`name not registered`).
return function()
  check.fails("NotFound", "name not registered", process.registry.lookup(check.unique("nobody")))
end
