-- 13.3 `_header` in claims = extra header fields; it is no claim.
local crypto, json, base64 = require("crypto"), require("json"), require("base64")

return function()
  local token = assert(crypto.jwt.encode({ sub = "u1", _header = { kid = "k7" } }, "secret"))
  local head = token:match("^[^.]+"):gsub("-", "+"):gsub("_", "/")
  local header = json.decode(base64.decode(head .. ("="):rep(-#head % 4)))
  check.equal(header.kid, "k7")
  check.equal(header.alg, "HS256")
  check.equal(crypto.jwt.verify(token, "secret", "HS256", false), { sub = "u1" })
end
