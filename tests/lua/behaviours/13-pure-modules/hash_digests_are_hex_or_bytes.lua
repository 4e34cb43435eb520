-- 13.4 `hash.md5 sha1 sha256 sha512 (data[, raw])` → hex, or bytes if raw.
local hash = require("hash")

return function()
  for name, hex in pairs{
    md5 = "900150983cd24fb0d6963f7d28e17f72", sha1 = "a9993e364706816aba3e25717850c26c9cd0d89d",
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    sha512 = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
      .. "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
  } do
    check.equal(hash[name]("abc"), hex)
    check.equal(hash[name]("abc", false), hex)
    local raw = hash[name]("abc", true)
    check.equal(raw:gsub(".", function(c) return ("%02x"):format(c:byte()) end), hex)
  end
  check.equal(hash.md5(""), "d41d8cd98f00b204e9800998ecf8427e")
  check.equal(#hash.sha1("\0\xFF\0", true), 20)
end
