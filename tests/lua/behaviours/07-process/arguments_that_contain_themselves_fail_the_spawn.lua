-- 3.4 Cyclic tables are an error.
return function()
  local cycle = {}
  cycle.me = cycle
  check.fails("Invalid", nil, process.spawn("lua.support:give", "lua.support:processes", cycle))
  check.fails("Invalid", nil, process.exec("lua.support:give", "lua.support:processes", { { cycle } }))
end
