-- 4 `e:retryable()`: true, false or nil (not said); nil is not false (trap 15.4).
local funcs = require("funcs")

return function()
  check.is_true(errors.new{ message = "m", retryable = true }:retryable())
  check.is_false(errors.new{ message = "m", retryable = false }:retryable())
  check.is_nil(errors.new{ message = "m" }:retryable())
  for _, retryable in ipairs{ "true", "false", "unsaid" } do
    local said
    if retryable ~= "unsaid" then said = retryable == "true" end
    local _, err = funcs.call("lua.support:fails", { message = "m", kind = "Timeout", retryable = said })
    check.equal(err:retryable(), said, retryable)
  end
end
