-- 13.3 AES-GCM, nonce in front.
local crypto = require("crypto")

return function()
  -- Test case 4 of the GCM specification, its nonce put in front and its tag behind.
  local function bytes(hex) return (hex:gsub("%x%x", function(d) return string.char(tonumber(d, 16)) end)) end
  local sealed = bytes("cafebabefacedbaddecaf888"
    .. "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
    .. "5bc94fbc3221a5db94fae95ae7121a47")
  local data = crypto.decrypt.aes(sealed, bytes("feffe9928665731c6d6a8f9467308308"),
    bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2"))
  check.equal(data, bytes("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
    .. "b16aedf5aa0de657ba637b39"))
end
