-- 13.3 `hmac.sha256(key, data)`, `hmac.sha512(key, data)` → lower-case hex; empty key → `Invalid`.
local crypto = require("crypto")
local FOX = "The quick brown fox jumps over the lazy dog"

return function()
  check.equal(crypto.hmac.sha256("key", FOX), "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8")
  check.equal(crypto.hmac.sha512("key", FOX),
    "b42af09057bac1e2d41708e48a902e09b5ff7f12ab428a4fe86653c73dd248fb82f948a549f7b791a5b41915ee4d1ec3935357e4e2317250d0372afa2ebeeb3a")
  check.fails(errors.INVALID, nil, crypto.hmac.sha256("", "data"))
  check.fails(errors.INVALID, nil, crypto.hmac.sha512("", "data"))
end
