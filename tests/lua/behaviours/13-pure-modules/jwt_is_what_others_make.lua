-- 13.3 A token is a JWT as everybody else makes it; `alg` is HS256 if not said.
local crypto = require("crypto")

return function()
  local claims = check.equal(crypto.jwt.verify(
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ"
      .. ".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
    "your-256-bit-secret", "HS256", false), { sub = "1234567890", name = "John Doe", iat = 1516239022 })
  check.type_is(claims.iat, "integer")
end
