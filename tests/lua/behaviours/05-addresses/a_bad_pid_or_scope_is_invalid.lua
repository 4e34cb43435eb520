-- 5.2 Bad pid or scope: `Invalid`.
return function()
  check.fails("Invalid", nil, process.registry.register(check.unique("bad"), "no pid"))
  check.fails("Invalid", nil, process.registry.register(check.unique("bad"), process.pid(), 4))
  check.fails("Invalid", nil, process.registry.register(check.unique("bad"), process.pid(), -1))
end
