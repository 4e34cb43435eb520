-- 12.2 `version(s)` → integer; `variant(s)` → `"RFC4122"` …; `| nil, Invalid`.
local uuid = require("uuid")

return function()
  check.equal(check.type_is(uuid.version(uuid.v1()), "integer"), 1)
  check.equal(uuid.version(uuid.v4()), 4)
  check.equal(uuid.version(uuid.v5(uuid.v4(), "x")), 5)
  check.equal(uuid.version(uuid.v7()), 7)
  check.equal(uuid.variant(uuid.v4()), "RFC4122")
  check.fails(errors.INVALID, nil, uuid.version("x"))
  check.fails(errors.INVALID, nil, uuid.variant("x"))
end
