-- 4 `errors.is(v, kind)`: boolean.
return function()
  local err = errors.new{ message = "m", kind = errors.TIMEOUT }
  check.is_true(errors.is(err, errors.TIMEOUT))
  check.is_false(errors.is(err, errors.INTERNAL))
  check.is_true(errors.is(errors.new("m"), errors.UNKNOWN))
  check.is_true(errors.is(errors.wrap(err, "context"), errors.TIMEOUT))
end
