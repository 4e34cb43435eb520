-- 11.8 A monitor of a workflow gets EXIT, whether it ended well or not: kind, from, at, result.
-- imports: wf=lua.support:wf.lib
return function()
  local good = wf.start("wf.echo", nil, { 1 })
  local exit = wf.exit(good)
  check.equal({ exit.kind, exit.from, exit.result.value }, { "pid.exit", good, { 1 } })
  check.type_is(exit.at, "number")
  check.is_nil(exit.result.error)
  local bad = wf.start("wf.fail", nil, { message = "no", kind = "Conflict" })
  check.error_is(wf.exit(bad).result.error, "Conflict", "^no$")
  check.is_nil(wf.exit(bad).result.value)
end
