-- 3.3 A process whose second value is a string has failed: `Internal`, that message, not retryable.
return function()
  local err = check.fails("Internal", "^something$", process.exec("lua.support:give", "lua.support:processes", "value", "something"))
  check.is_false(err:retryable())
end
