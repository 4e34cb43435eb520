-- 7.2 `process.exec` spawns, waits and gives the child's value.
return function()
  local H = "lua.support:processes"
  local value, err = process.exec("lua.support:give", H, { sum = 5, list = { 1, 2.5, "x" } })
  check.equal(value, { sum = 5, list = { 1, 2.5, "x" } })
  check.is_nil(err)
  check.type_is(process.exec("lua.support:give", H, 7), "integer")
  check.is_false((process.exec("lua.support:give", H, false)))
  local nothing, no_error = process.exec("lua.support:give", H)
  check.is_nil(nothing)
  check.is_nil(no_error)
end
