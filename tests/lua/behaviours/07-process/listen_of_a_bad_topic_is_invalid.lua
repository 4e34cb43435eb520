-- 7.3 `process.listen` of an empty topic or one that starts with `@` gives `nil, Invalid`.
return function()
  check.is_false(check.fails("Invalid", nil, process.listen("")):retryable())
  check.is_false(check.fails("Invalid", nil, process.listen("@x")):retryable())
end
