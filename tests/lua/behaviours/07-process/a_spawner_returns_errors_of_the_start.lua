-- 7.2 What cannot be started through a Spawner is returned as an error, like without one.
return function()
  local spawner = process.with_options{}
  check.fails("NotFound", "host not found", spawner:spawn("lua.support:give", "lua.support:nowhere"))
  check.fails("NotFound", "factory not found", spawner:spawn("lua.support:nothing", "lua.support:processes"))
  local name = check.unique("name")
  check.fails("Internal", "the chunk says no", spawner:with_name(name):spawn("lua.support:chunk_raises_text", "lua.support:processes"))
  check.fails("NotFound", "name not registered", process.registry.lookup(name))
end
