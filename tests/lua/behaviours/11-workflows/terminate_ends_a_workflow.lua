-- 11.8 `terminate` from outside: no more Lua runs, watchers get EXIT with Canceled, `workflow terminated`.
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.wait", nil, 1)
  check.is_true(process.terminate(pid))
  check.error_is(wf.error(pid), "Canceled", "^workflow terminated$")
  check.fails("NotFound", nil, process.send(pid, "input?"))
  check.nothing(process.inbox())
end
