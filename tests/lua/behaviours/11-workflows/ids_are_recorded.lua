-- 11.4 `uuid.v1 v4 v7` and `crypto.random` are computed once: after a replay the values are the same.
-- as: workflow
local funcs, time, uuid, crypto = require("funcs"), require("time"), require("uuid"), require("crypto")

return function()
  local values = {
    (uuid.v1()), (uuid.v4()), (uuid.v7()), (crypto.random.string(20)), (crypto.random.uuid()), (crypto.random.bytes(16)),
  }
  local recorded = funcs.call("lua.support:fn.echo", values)
  time.sleep("10ms")
  check.equal(values, recorded)
  for i = 1, 3 do check.is_true(uuid.validate(values[i])) end
  check.is_false((uuid.v4()) == (uuid.v4()))
end
