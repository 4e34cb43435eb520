-- 13.3 `random.string(n[, charset])`: n in 1…1 MiB, charset not empty, else `nil, Invalid`.
local crypto = require("crypto")

return function()
  check.matches(crypto.random.string(40), "^[%w%p]+$")
  check.equal(#crypto.random.string(40), 40)
  check.matches(crypto.random.string(200, "ab"), "^[ab]+$")
  check.equal(crypto.random.string(3, "x"), "xxx")
  check.is_true(crypto.random.string(30) ~= crypto.random.string(30))
  check.fails(errors.INVALID, nil, crypto.random.string(0))
  check.fails(errors.INVALID, nil, crypto.random.string(1048577))
  check.fails(errors.INVALID, nil, crypto.random.string(5, ""))
end
