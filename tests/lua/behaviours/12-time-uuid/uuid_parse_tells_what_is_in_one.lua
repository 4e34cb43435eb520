-- 12.2 `parse(s)` → `{version, variant, timestamp?, node?}`: timestamp (Unix s) for v1 and v7, node for v1.
local uuid = require("uuid")

return function()
  local four = check.equal(uuid.parse("f47ac10b-58cc-4372-a567-0e02b2c3d479"), { version = 4, variant = "RFC4122" })
  check.is_nil(four.timestamp)
  local one = uuid.parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
  check.equal(one.timestamp, 886630433)
  check.type_is(one.node, "string")
  local seven = uuid.parse("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
  check.equal(seven, { version = 7, variant = "RFC4122", timestamp = 1645557742 })
  local now = uuid.parse(uuid.v7()).timestamp
  check.is_true(math.abs(now - os.time()) <= 1)
  check.fails(errors.INVALID, nil, uuid.parse("x"))
end
