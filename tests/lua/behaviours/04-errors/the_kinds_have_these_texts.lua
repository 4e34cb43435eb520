-- 4 The constants of `errors`.
return function()
  check.equal({
    errors.UNKNOWN, errors.INVALID, errors.NOT_FOUND, errors.ALREADY_EXISTS, errors.PERMISSION_DENIED, errors.UNAVAILABLE,
    errors.INTERNAL, errors.CANCELED, errors.CONFLICT, errors.TIMEOUT, errors.RATE_LIMITED,
  }, {
    "", "Invalid", "NotFound", "AlreadyExists", "PermissionDenied", "Unavailable", "Internal", "Canceled", "Conflict",
    "Timeout", "RateLimited",
  })
end
