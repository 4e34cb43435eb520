-- 4 `errors.new{message=, kind=?, retryable=?, details=?}`.
return function()
  local err = errors.new{
    message = "id is empty", kind = errors.INVALID, retryable = false, details = { field = "id", nested = { list = { 1 } } },
  }
  check.error_is(err, "Invalid", "^id is empty$", false)
  check.equal(err:details(), { field = "id", nested = { list = { 1 } } })
  check.error_is(errors.new{ message = "m", retryable = true }, "", "^m$", true)
  check.error_is(errors.new{ message = "m", kind = "OfMyOwn" }, "OfMyOwn", "^m$", "unsaid")
end
