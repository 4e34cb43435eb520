-- 13.3 A workflow's `jwt.verify` and `pbkdf2` give the same in every replay.
-- as: workflow
local crypto, time = require("crypto"), require("time")

return function()
  local token = assert(crypto.jwt.encode({ sub = "u1", exp = time.now():unix() + 60 }, "secret"))
  local key = crypto.pbkdf2("passwd", "salt", 100, 16)
  check.equal(crypto.jwt.verify(token, "secret").sub, "u1")
  time.sleep("5ms")
  check.equal(crypto.jwt.verify(token, "secret").sub, "u1")
  check.equal(crypto.pbkdf2("passwd", "salt", 100, 16), key)
end
