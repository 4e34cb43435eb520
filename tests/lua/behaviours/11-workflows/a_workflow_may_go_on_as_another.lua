-- 11.9 `process.upgrade(id, ...)` goes on in the code of another entry, under the same PID.
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.becomes", nil, "lua.support:wf.echo", { 7 })
  check.equal(wf.value(pid), { 7 })
end
