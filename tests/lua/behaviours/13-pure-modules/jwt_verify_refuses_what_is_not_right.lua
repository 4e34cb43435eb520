-- 13.3 `jwt.verify` → `nil, Internal`: expired, another key, another algorithm, changed, no token at all.
local crypto, time = require("crypto"), require("time")

return function()
  local now = time.now():unix()
  local good = assert(crypto.jwt.encode({ sub = "u1", exp = now + 60 }, "secret"))
  local function refused(token, key, alg, require_exp)
    check.fails(errors.INTERNAL, nil, crypto.jwt.verify(token, key, alg, require_exp))
  end
  refused(good, "other")
  refused(good, "secret", "HS512")
  refused(good:gsub("%.[^.]+$", "."), "secret")
  refused("not.a.token", "secret")
  local expired = assert(crypto.jwt.encode({ sub = "u1", exp = now - 60 }, "secret"))
  refused(expired, "secret")
  refused(expired, "secret", "HS256", false)
  local none = "eyJhbGciOiJub25lIn0." .. good:match("%.([^.]+)%.") .. "."
  refused(none, "secret")
end
