-- 11.9 A monitor sees through continued runs: one EXIT, with the result of the last run.
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.again", nil, 3)
  check.equal(#wf.value(pid), 4)
  check.nothing(process.events())
end
