-- 13.3 `encrypt.aes` (keys of 16/24/32 bytes) and `encrypt.chacha20` (32), with and without `aad`.
local crypto = require("crypto")
local DATA = "secret \0\xFF text"

return function()
  for cipher, sizes in pairs{ aes = { 16, 24, 32 }, chacha20 = { 32 } } do
    for _, size in ipairs(sizes) do
      local key = crypto.random.bytes(size)
      for _, aad in ipairs{ false, "for:order-1" } do
        local sealed, err = crypto.encrypt[cipher](DATA, key, aad or nil)
        check.is_nil(err)
        check.equal(#sealed, 12 + #DATA + 16, "nonce, data and tag")
        check.is_nil(sealed:find(DATA, 1, true))
        check.equal(crypto.decrypt[cipher](sealed, key, aad or nil), DATA)
        check.is_true(sealed ~= crypto.encrypt[cipher](DATA, key, aad or nil), "another nonce each time")
      end
    end
  end
end
