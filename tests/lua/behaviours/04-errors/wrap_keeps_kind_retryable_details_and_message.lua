-- 4 `errors.wrap` keeps kind, retryable, details and message() of the first (trap 15.3).
return function()
  local cause = errors.new{ message = "no stock", kind = errors.CONFLICT, retryable = true, details = { sku = "x" } }
  local err = errors.wrap(cause, "while ordering")
  check.error_is(err, "Conflict", "^no stock$", true)
  check.equal(err:details(), { sku = "x" })
  check.equal(tostring(err), "no stock")
  check.is_true(err ~= cause, "a new Error")
end
