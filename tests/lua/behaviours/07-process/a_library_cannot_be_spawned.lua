-- 7.2 Only a process has a factory on a process host: a library or a function is `factory not found`.
return function()
  check.fails("NotFound", "factory not found", process.spawn("lua.support:check", "lua.support:processes"))
  check.fails("NotFound", "factory not found", process.spawn("lua.support:puppet_call", "lua.support:processes"))
end
