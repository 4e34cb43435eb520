-- 7.4 The process stays the same: the context values of its start are there after an upgrade.
return function()
  local pid = process.with_context{ trace = "t1" }:spawn_monitored("lua.support:upgrades_at_once", "lua.support:processes")
  local about = check.receive(process.events()).result.value
  check.equal(about.id, "lua.support:about")
  check.equal(about.pid, pid)
  check.equal(about.context, { trace = "t1" })
end
