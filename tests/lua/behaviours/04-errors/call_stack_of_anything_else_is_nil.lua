-- 4 `errors.call_stack(err)`: … or nil.
return function()
  check.is_nil(errors.call_stack("text"))
  check.is_nil(errors.call_stack(nil))
  check.is_nil(errors.call_stack({}))
end
