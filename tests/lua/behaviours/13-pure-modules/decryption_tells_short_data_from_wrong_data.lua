-- 13.3 `decrypt`: too short → `Invalid`; failed check → `Internal`.
local crypto = require("crypto")

return function()
  local key = ("k"):rep(32)
  for _, cipher in ipairs{ "aes", "chacha20" } do
    local decrypt = crypto.decrypt[cipher]
    check.fails(errors.INVALID, nil, decrypt("", key))
    check.fails(errors.INVALID, nil, decrypt(("x"):rep(11), key))
    local sealed = crypto.encrypt[cipher]("data", key, "aad")
    check.fails(errors.INTERNAL, nil, decrypt(sealed, key))
    check.fails(errors.INTERNAL, nil, decrypt(sealed, key, "other"))
    check.fails(errors.INTERNAL, nil, decrypt(sealed, ("l"):rep(32), "aad"))
    local last = sealed:byte(-1)
    check.fails(errors.INTERNAL, nil, decrypt(sealed:sub(1, -2) .. string.char(last ~ 1), key, "aad"))
  end
end
