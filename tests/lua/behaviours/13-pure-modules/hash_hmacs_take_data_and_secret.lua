-- 13.4 `hash.hmac_md5 hmac_sha1 hmac_sha256 hmac_sha512 (data, secret[, raw])` → hex, or bytes if raw.
local hash = require("hash")
local FOX = "The quick brown fox jumps over the lazy dog"

return function()
  for name, hex in pairs{
    hmac_md5 = "80070713463e7749b90c2dc24911e275", hmac_sha1 = "de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9",
    hmac_sha256 = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8",
    hmac_sha512 = "b42af09057bac1e2d41708e48a902e09b5ff7f12ab428a4fe86653c73dd248fb"
      .. "82f948a549f7b791a5b41915ee4d1ec3935357e4e2317250d0372afa2ebeeb3a",
  } do
    check.equal(hash[name](FOX, "key"), hex)
    local raw = hash[name](FOX, "key", true)
    check.equal(raw:gsub(".", function(c) return ("%02x"):format(c:byte()) end), hex)
  end
end
