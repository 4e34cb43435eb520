-- 3.2 `payload` is always present; `require("payload")` is the same.
return function()
  check.is_true(require("payload").new == payload.new)
  check.equal(require("payload").format.JSON, "json/plain")
end
