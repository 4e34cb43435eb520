-- 7.2 `with_name` on a process host with a free name: spawned and registered before the child runs.
return function()
  local name = check.unique("me")
  local pid = process.with_options{}:with_name(name):spawn_monitored("lua.support:about", "lua.support:processes", { name = name })
  local about = check.receive(process.events()).result.value
  check.equal(about.pid, pid)
  check.equal(about.named, pid)
end
