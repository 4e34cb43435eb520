-- 3.3 A second value that is neither a string nor an Error does not make a process fail.
return function()
  for _, second in ipairs({ 1, true, false, { message = "x" } }) do
    local value, err = process.exec("lua.support:give", "lua.support:processes", "value", second)
    check.equal(value, "value")
    check.is_nil(err)
  end
end
