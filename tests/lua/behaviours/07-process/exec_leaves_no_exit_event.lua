-- 9 EXIT is sent to monitors only: `process.exec` gives its caller no event.
return function()
  process.exec("lua.support:give", "lua.support:processes", 1)
  process.exec("lua.support:raise", "lua.support:processes", "x")
  check.nothing(process.events())
end
