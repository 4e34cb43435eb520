-- 7.4 `process.upgrade` in a function call is an error, and the call goes on.
-- process: never, because it is about function calls
return function()
  local err = check.fails("Internal", nil, process.upgrade(nil, 1))
  check.is_false(err:retryable())
  check.fails("Internal", nil, process.upgrade("lua.support:give", 1))
end
