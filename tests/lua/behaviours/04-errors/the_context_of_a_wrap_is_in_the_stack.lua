-- 4 `errors.wrap`: the context is only in the wrap chain and stack.
return function()
  local err = errors.wrap(errors.wrap(errors.new("root"), "while ordering"), errors.new("while shopping"))
  check.equal(err:message(), "root")
  check.matches(err:stack(), "while ordering")
  check.matches(err:stack(), "while shopping")
  check.matches(err:stack(), "root")
end
