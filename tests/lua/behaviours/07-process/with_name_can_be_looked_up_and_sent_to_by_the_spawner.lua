-- 7.2 The name of `with_name` stands for the child as soon as the spawn has returned.
return function()
  local name = check.unique("collector")
  local pid = process.with_options{}:with_name(name):spawn_monitored("lua.support:collect", "lua.support:processes", 1)
  check.equal(process.registry.lookup(name), pid)
  check.is_true((process.send(name, "x", "by name")))
  check.equal(check.receive(process.events()).result.value[1].data, "by name")
end
