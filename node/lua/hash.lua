-- The module `hash` (contract section 13.4): digests and checksums of byte strings.
--
-- Digests are computed by the host. FNV is done here, as it is a loop over bytes: C has none, and in Lua the unit's
-- instruction budget counts it.

local K = ...
local raw = K.raw
local byte, gsub, sformat, type = raw.string.byte, raw.string.gsub, raw.string.format, raw.type

local hash = {}

--- Bytes as lower-case hex digits.
function K.hex(bytes)
  return (gsub(bytes, ".", function(c) return sformat("%02x", byte(c)) end))
end

local function not_text(what, argument, value)
  return K.invalid(sformat("hash.%s: the %s must be a string, got %s", what, argument, K.type(value)))
end

for _, name in raw.ipairs({ "md5", "sha1", "sha256", "sha512" }) do
  hash[name] = function(data, as_bytes)
    if type(data) ~= "string" then
      return not_text(name, "data", data)
    end
    local digest = K.host.digest(name, data)
    return as_bytes and digest or K.hex(digest), nil
  end

  local hmac_name = "hmac_" .. name
  hash[hmac_name] = function(data, secret, as_bytes)
    if type(data) ~= "string" then
      return not_text(hmac_name, "data", data)
    elseif type(secret) ~= "string" then
      return not_text(hmac_name, "secret", secret)
    end
    local digest = K.host.hmac(name, secret, data)
    return as_bytes and digest or K.hex(digest), nil
  end
end

-- FNV-1: multiply, then mix the byte in (FNV-1a does it the other way round).

function hash.fnv32(data)
  if type(data) ~= "string" then
    return not_text("fnv32", "data", data)
  end
  local h = 0x811c9dc5
  for i = 1, #data do
    h = h * 0x01000193 & 0xffffffff ~ byte(data, i)
  end
  return h, nil
end

--- All 64 bits as an integer: from 2^63 on it is negative.
function hash.fnv64(data)
  if type(data) ~= "string" then
    return not_text("fnv64", "data", data)
  end
  local h = 0xcbf29ce484222325
  for i = 1, #data do
    h = h * 0x100000001b3 ~ byte(data, i)
  end
  return h, nil
end

K.modules.hash = hash
