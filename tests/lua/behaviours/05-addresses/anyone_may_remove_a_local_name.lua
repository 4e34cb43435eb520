-- 5.2 `LOCAL`: anyone may remove.
return function()
  local name = check.unique("anyones")
  local pid = process.spawn("lua.support:answers", "lua.support:processes")
  process.registry.register(name, pid)
  check.is_true((process.registry.unregister(name)))
  check.fails("NotFound", nil, process.registry.lookup(name))
  process.send(pid, "stop")
end
