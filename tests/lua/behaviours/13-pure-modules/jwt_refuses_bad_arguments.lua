-- 4 Bad argument values → `nil, Invalid`: an unknown algorithm, an empty key.
local crypto = require("crypto")

return function()
  check.fails(errors.INVALID, nil, crypto.jwt.encode({ sub = "u1" }, "secret", "none"))
  check.fails(errors.INVALID, nil, crypto.jwt.encode({ sub = "u1" }, ""))
  check.fails(errors.INVALID, nil, crypto.jwt.verify("a.b.c", "secret", "none"))
end
