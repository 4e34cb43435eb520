-- 3.4 A process that returns a cyclic table has failed.
return function()
  local value, err = process.exec("lua.support:gives_a_cycle", "lua.support:processes")
  check.is_nil(value)
  check.type_is(err, "userdata")
  check.is_true(err:message() ~= "")
end
