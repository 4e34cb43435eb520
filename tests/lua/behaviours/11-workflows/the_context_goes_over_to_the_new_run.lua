-- 11.9 Context values go over to the new run.
return function()
  local spawner = process.with_context({ user = "ada" })
  local pid = spawner:spawn_monitored("lua.support:wf.becomes", "lua.support:worker", "lua.support:wf.context")
  local exit = check.receive(process.events())
  check.equal({ exit.from, exit.result.value }, { pid, { user = "ada" } })
end
