-- 13.3 `jwt.encode` with RS256: the private key signs, the public one verifies.
-- imports: keys=lua.support:pure.keys
local crypto, time = require("crypto"), require("time")

return function()
  local claims = { sub = "u1", exp = time.now():unix() + 60 }
  local token = assert(crypto.jwt.encode(claims, keys.private, "RS256"))
  check.equal(crypto.jwt.verify(token, keys.public, "RS256"), claims)
  check.fails(errors.INTERNAL, nil, crypto.jwt.verify(token .. "x", keys.public, "RS256"))
end
