-- 13.3 `jwt.encode(claims, key[, alg="HS256"])`, `jwt.verify(token, key[, alg])` → claims.
local crypto, time = require("crypto"), require("time")

return function()
  local claims = { sub = "u1", exp = time.now():unix() + 60, roles = { "a", "b" }, n = 5 }
  check.equal(crypto.jwt.verify(assert(crypto.jwt.encode(claims, "secret")), "secret"), claims)
  for _, alg in ipairs{ "HS256", "HS384", "HS512" } do
    local token = assert(crypto.jwt.encode(claims, "secret", alg))
    check.matches(token, "^[%w_-]+%.[%w_-]+%.[%w_-]+$")
    check.equal(crypto.jwt.verify(token, "secret", alg), claims, alg)
  end
end
