-- 13.3 `random.bytes(n)`: n in 1…1 MiB, else `nil, Invalid`.
local crypto = require("crypto")

return function()
  check.equal(#crypto.random.bytes(1), 1)
  check.equal(#crypto.random.bytes(1048576), 1048576)
  check.is_true(crypto.random.bytes(32) ~= crypto.random.bytes(32))
  check.fails(errors.INVALID, nil, crypto.random.bytes(0))
  check.fails(errors.INVALID, nil, crypto.random.bytes(-1))
  check.fails(errors.INVALID, nil, crypto.random.bytes(1048577))
end
