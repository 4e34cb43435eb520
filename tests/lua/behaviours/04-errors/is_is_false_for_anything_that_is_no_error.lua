-- 4 `errors.is`: false for nil and for anything that is not an Error.
return function()
  for _, v in ipairs{ "Timeout", 1, {}, true, { kind = "Timeout" }, channel.new() } do
    check.is_false(errors.is(v, errors.TIMEOUT))
    check.is_false(errors.is(v, errors.UNKNOWN))
  end
  check.is_false(errors.is(nil, errors.UNKNOWN))
end
