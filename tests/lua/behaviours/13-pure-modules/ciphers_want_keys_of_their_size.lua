-- 13.3 A bad key → `Invalid`, for encryption and decryption.
local crypto = require("crypto")

return function()
  for _, size in ipairs{ 0, 8, 15, 17, 31, 33 } do
    check.fails(errors.INVALID, nil, crypto.encrypt.aes("x", ("k"):rep(size)))
    check.fails(errors.INVALID, nil, crypto.decrypt.aes(("x"):rep(40), ("k"):rep(size)))
  end
  for _, size in ipairs{ 0, 16, 24, 31, 33 } do
    check.fails(errors.INVALID, nil, crypto.encrypt.chacha20("x", ("k"):rep(size)))
    check.fails(errors.INVALID, nil, crypto.decrypt.chacha20(("x"):rep(40), ("k"):rep(size)))
  end
end
