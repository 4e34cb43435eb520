-- 11.4 `crypto.random.*` and `crypto.encrypt.*` are computed once in a workflow: a replay has the same.
-- as: workflow
local crypto, hash, time, funcs = require("crypto"), require("hash"), require("time"), require("funcs")

return function()
  -- What the callee was told is recorded, what is compared with it is made again by every replay.
  for _ = 1, 2 do
    local key = crypto.random.bytes(32)
    local made = {
      hash.sha256(key), crypto.random.string(20), crypto.random.uuid(), hash.sha256(crypto.encrypt.aes("data", key)),
      hash.sha256(crypto.encrypt.chacha20("data", key)), math.random(1, 1000000),
    }
    check.equal(funcs.call("lua.support:pure.echo", made), made)
    check.equal(crypto.decrypt.aes(crypto.encrypt.aes("data", key), key), "data")
    time.sleep("5ms")
  end
end
