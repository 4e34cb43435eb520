-- 4 `errors.wrap(err_or_text, ctx_text_or_err)`.
return function()
  local err = errors.wrap("plain text", "context")
  check.error_is(err, "", "^plain text$", "unsaid")
  check.is_nil(err:details())
  check.matches(err:stack(), "context")
end
