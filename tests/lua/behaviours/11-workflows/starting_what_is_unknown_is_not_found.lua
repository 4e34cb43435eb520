-- 11.3 A host that nobody knows: NotFound `host not found`; an entry: `factory not found` (7.2).
return function()
  check.fails("NotFound", "^host not found", process.spawn("lua.support:wf.echo", "lua.support:nowhere"))
  check.fails("NotFound", "^factory not found", process.spawn("lua.support:wf.nothing", "lua.support:worker"))
end
