-- 4 `errors` is a global; `require("errors")` works everywhere.
-- as: workflow
-- modules:
return function()
  check.is_true(require("errors") == errors)
  check.error_is(errors.new{ message = "m", kind = errors.CONFLICT }, "Conflict", "^m$", "unsaid")
end
