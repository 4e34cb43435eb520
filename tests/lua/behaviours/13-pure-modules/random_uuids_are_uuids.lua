-- 13.3 `random.uuid()`.
local crypto, uuid = require("crypto"), require("uuid")

return function()
  local id = crypto.random.uuid()
  check.equal(uuid.version(id), 4)
  check.is_true(id ~= crypto.random.uuid())
end
