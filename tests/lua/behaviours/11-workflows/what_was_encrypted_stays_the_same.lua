-- 11.4 `crypto.encrypt` in a workflow is computed once: after a replay it is the same bytes.
-- as: workflow
local funcs, time, crypto = require("funcs"), require("time"), require("crypto")

return function()
  local key = string.rep("k", 32)
  local sealed = check.type_is(crypto.encrypt.aes("secret", key), "string")
  local recorded = funcs.call("lua.support:fn.echo", sealed)
  time.sleep("10ms")
  check.equal(sealed, recorded)
  check.equal(crypto.decrypt.aes(recorded, key), "secret")
end
