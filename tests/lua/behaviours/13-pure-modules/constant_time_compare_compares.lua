-- 13.3 `constant_time_compare(a, b)` → boolean.
local crypto = require("crypto")

return function()
  check.is_true(crypto.constant_time_compare("abc", "abc"))
  check.is_true(crypto.constant_time_compare("", ""))
  check.is_false(crypto.constant_time_compare("abc", "abd"))
  check.is_false(crypto.constant_time_compare("abc", "ab"))
  check.is_true(crypto.constant_time_compare("\0\xFF", "\0\xFF"))
end
