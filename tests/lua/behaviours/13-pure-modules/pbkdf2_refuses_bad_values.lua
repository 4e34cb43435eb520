-- 13.3 `pbkdf2`: iterations ≤ 10⁷; bad values → `Invalid`.
local crypto = require("crypto")

return function()
  check.fails(errors.INVALID, nil, crypto.pbkdf2("p", "s", 0, 16))
  check.fails(errors.INVALID, nil, crypto.pbkdf2("p", "s", -1, 16))
  check.fails(errors.INVALID, nil, crypto.pbkdf2("p", "s", 10000001, 16))
  check.fails(errors.INVALID, nil, crypto.pbkdf2("p", "s", 1, 0))
  check.fails(errors.INVALID, nil, crypto.pbkdf2("p", "s", 1, -5))
  check.fails(errors.INVALID, nil, crypto.pbkdf2("p", "s", 1, 16, "md5"))
end
