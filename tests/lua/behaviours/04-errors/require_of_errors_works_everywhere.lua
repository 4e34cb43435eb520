-- 4 `errors` is a global; `require("errors")` works everywhere.
-- modules:
return function()
  check.is_true(require("errors") == errors)
end
