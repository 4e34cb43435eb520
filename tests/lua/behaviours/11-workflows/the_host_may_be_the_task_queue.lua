-- 11.4 The host of a workflow is the worker's ID or the name of its task queue (7.2).
return function()
  check.equal(process.exec("lua.support:wf.echo", "lua", 5), 5)
  check.equal(process.exec("lua.support:wf.echo", "lua.support:worker", 5), 5)
end
