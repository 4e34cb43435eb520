-- 13.3 `jwt.verify(token, key[, alg][, require_exp=true])`: without `exp` → `nil, Internal`.
local crypto = require("crypto")

return function()
  local token = assert(crypto.jwt.encode({ sub = "u1" }, "secret"))
  check.fails(errors.INTERNAL, nil, crypto.jwt.verify(token, "secret"))
  check.fails(errors.INTERNAL, nil, crypto.jwt.verify(token, "secret", "HS256", true))
  check.equal(crypto.jwt.verify(token, "secret", "HS256", false), { sub = "u1" })
end
