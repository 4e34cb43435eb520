-- 4 `message` must be a string; any other argument type raises.
return function()
  check.raises(errors.new, nil, nil)
  check.raises(errors.new, nil, 42)
  check.raises(errors.new, nil, true)
  check.raises(errors.new, nil, {})
  check.raises(errors.new, nil, { message = 42 })
  check.raises(errors.new, nil, { kind = errors.INVALID })
  check.raises(errors.new, nil, print)
end
