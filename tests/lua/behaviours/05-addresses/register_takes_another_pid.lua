-- 5.2 `register(name, pid)`: a name for another unit.
return function()
  local name = check.unique("other")
  local pid = process.spawn("lua.support:answers", "lua.support:processes")
  check.is_true(process.registry.register(name, pid))
  check.equal(process.registry.lookup(name), pid)
  check.is_true(process.send(name, "hello", 1))
  check.equal(check.receive(process.listen("answer")).data, 1)
  check.is_true(process.send(name, "stop"))
end
