-- 11.8 Monitoring an id that never existed gives true, and then an EXIT with an error.
return function()
  local pid = process.spawn("lua.support:wf.echo", "lua.support:worker"):gsub("|.*}", "|" .. check.unique("never") .. "}")
  check.is_true(process.monitor(pid))
  local exit = check.receive(process.events())
  check.equal({ exit.kind, exit.from }, { "pid.exit", pid })
  check.type_is(exit.result.error, "userdata")
end
