-- 11.4 Every spawn variant starts a child workflow, and the parent gets an EXIT event for it without asking.
-- as: workflow
-- imports: wf=lua.support:wf.lib
return function()
  for _, variant in ipairs({ "spawn", "spawn_monitored", "spawn_linked", "spawn_linked_monitored" }) do
    local pid = process[variant]("lua.support:wf.echo", "lua.support:worker", variant)
    local exit = wf.exit(pid)
    check.equal({ exit.kind, exit.from, exit.result.value }, { "pid.exit", pid, variant })
    check.is_nil(exit.result.error)
    check.type_is(exit.at, "number")
  end
end
