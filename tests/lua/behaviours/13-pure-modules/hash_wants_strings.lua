-- 13.4 A non-string → `nil, Invalid`.
local hash = require("hash")

return function()
  for _, name in ipairs{ "md5", "sha1", "sha256", "sha512", "fnv32", "fnv64" } do
    for _, bad in ipairs{ 5, true, {} } do
      check.fails(errors.INVALID, nil, hash[name](bad))
    end
    check.fails(errors.INVALID, nil, hash[name](nil))
  end
  for _, name in ipairs{ "hmac_md5", "hmac_sha1", "hmac_sha256", "hmac_sha512" } do
    check.fails(errors.INVALID, nil, hash[name](5, "key"))
    check.fails(errors.INVALID, nil, hash[name]("data", 5))
    check.fails(errors.INVALID, nil, hash[name]("data"))
  end
end
