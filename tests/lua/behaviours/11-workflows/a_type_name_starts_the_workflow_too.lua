-- 11.10 `workflow_type` is the name of the type, if one is given; it can be started by that or by its entry ID (2.1).
-- imports: wf=lua.support:wf.lib
return function()
  check.equal(process.exec("lua.support:wf.named", "lua.support:worker").workflow_type, "suite.named")
  check.equal(wf.value(process.spawn_monitored("suite.named", "lua.support:worker")).workflow_type, "suite.named")
  check.equal(process.exec("lua.support:wf.info", "lua.support:worker").workflow_type, "lua.support:wf.info")
end
