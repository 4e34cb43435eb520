-- 11.3 After the end an id can be used again: `allow_duplicate` is the default.
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("again")
  local first = wf.start("wf.echo", { id = id }, 1)
  check.equal(wf.value(first), 1)
  local second = process.with_options({ id = id }):spawn("lua.support:wf.wait", wf.worker)
  check.equal(second, first)
  process.send(second, "input?")
  check.receive(process.listen("input?"))
  process.send(second, "done")
end
