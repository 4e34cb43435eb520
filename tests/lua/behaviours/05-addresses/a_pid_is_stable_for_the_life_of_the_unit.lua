-- 5.1 `process.pid()` is stable for the life of the unit and is compared with `==`.
return function()
  local said = process.exec("lua.support:says_who", "lua.support:processes")
  check.equal(said.before, said.after)
  check.equal(said.id, "lua.support:says_who")
end
