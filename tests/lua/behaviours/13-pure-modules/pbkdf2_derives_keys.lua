-- 13.3 `pbkdf2(password, salt, iterations, length[, "sha256"|"sha512"])` → bytes.
local crypto = require("crypto")

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

return function()
  local wanted = "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
    .. "49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"
  check.equal(hex(crypto.pbkdf2("passwd", "salt", 1, 64)), wanted)
  check.equal(hex(crypto.pbkdf2("passwd", "salt", 1, 64, "sha256")), wanted)
  check.equal(hex(crypto.pbkdf2("passwd", "salt", 2, 20, "sha512")), "422a2c609b7e035e154ad40236dc0d73983c6c7a")
  check.equal(#crypto.pbkdf2("passwd", "salt", 1000, 16), 16)
end
