-- 4 `errors.new(text)`: kind "", retryable nil, details nil.
return function()
  local err = errors.new("went wrong")
  check.equal(err:message(), "went wrong")
  check.equal(err:kind(), "")
  check.is_nil(err:retryable())
  check.is_nil(err:details())
end
