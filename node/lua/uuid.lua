-- The `uuid` module (contract section 12.2): RFC 9562 identifiers as text.
--
-- Responsible for: making versions 1, 3, 4, 5 and 7; reading, checking and rewriting any version.
-- Not responsible for: entropy, time and hashes. They are the unit's clock (`K.now()`), its random numbers
-- (`K.random_u64(K.current)`) and `K.host.md5` / `K.host.sha1` (bytes to bytes), so a replay makes the same ids.
--
-- Inside, a UUID is two 64-bit integers: the first and the last eight bytes.

local K = ...
local raw = K.raw
local find, gsub, lower, sub = raw.string.find, raw.string.gsub, raw.string.lower, raw.string.sub
local pack, sformat, unpack = raw.string.pack, raw.string.format, raw.string.unpack
local tonumber = raw.tonumber

local GREGORIAN_TO_UNIX_TICKS <const> = 0x01B21DD213814000 -- 100 ns ticks from 1582-10-15 to 1970-01-01
local RFC_VARIANT <const> = raw.math.mininteger -- the two highest bits 10

local M = {}

local function text_of(high, low)
  return sformat("%08x-%04x-%04x-%04x-%012x", high >> 32, high >> 16 & 0xffff, high & 0xffff, low >> 48,
    low & 0xffffffffffff)
end

--- The text of a UUID whose version and variant bits are still to be set.
local function stamped(high, low, version)
  return text_of(high & ~0xf000 | version << 12, low & 0x3fffffffffffffff | RFC_VARIANT)
end

--- Both halves of a UUID in one of the four accepted forms (standard, without dashes, urn:uuid:, in braces); else nil.
local function halves_of(text)
  if raw.type(text) ~= "string" then
    return nil
  end
  local length, digits = #text, text
  if length == 45 and lower(sub(text, 1, 9)) == "urn:uuid:" then
    digits = sub(text, 10)
  elseif length == 38 and find(text, "^{.*}$") then
    digits = sub(text, 2, 37)
  end
  if #digits == 36 then
    if not find(digits, "^%x+%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x+$") or sub(digits, 9, 9) ~= "-" then
      return nil
    end
    digits = gsub(digits, "-", "")
  end
  if #digits ~= 32 or find(digits, "%X") then
    return nil
  end
  return tonumber(sub(digits, 1, 16), 16), tonumber(sub(digits, 17), 16)
end

local function invalid_uuid(name, value)
  local shown = raw.type(value) == "string" and "invalid UUID" or "a UUID text is expected, got " .. K.type(value)
  return K.invalid("uuid." .. name .. ": " .. shown)
end

local function version_of(high)
  return high >> 12 & 0xf
end

local function variant_of(low)
  local bits = low >> 61
  if bits < 4 then
    return "Reserved" -- NCS, before there was a standard
  elseif bits < 6 then
    return "RFC4122"
  end
  return bits == 6 and "Microsoft" or "Future"
end

--- Version 1. The unit's clock may stand still between two calls, so clock sequence and node are random each time; the
--- multicast bit says that the node is no hardware address (RFC 9562, 6.10).
function M.v1()
  local ticks = K.now() // 100 + GREGORIAN_TO_UNIX_TICKS
  local high = ticks << 32 | (ticks >> 32 & 0xffff) << 16 | ticks >> 48 & 0x0fff
  return stamped(high, K.random_u64(K.current) | 0x010000000000, 1), nil
end

function M.v4()
  local high = K.random_u64(K.current)
  return stamped(high, K.random_u64(K.current), 4), nil
end

--- Version 7: milliseconds and, in the next twelve bits, the fraction of a millisecond (RFC 9562, 6.2 method 3). Ids of
--- one unit increase even while its clock stands still: a time already used counts one fraction further.
function M.v7()
  local unit = K.current
  local now = K.now()
  local now_ms, rest_ns = now // 1000000, now % 1000000
  local stamp = now_ms << 12 | rest_ns * 4096 // 1000000
  local last = unit.uuid_v7_stamp
  if last and stamp <= last then
    stamp = last + 1
  end
  unit.uuid_v7_stamp = stamp
  return stamped((stamp >> 12) << 16 | stamp & 0xfff, K.random_u64(unit), 7), nil
end

local function named(function_name, version, digest, namespace, name)
  local high, low = halves_of(namespace)
  if not high then
    return invalid_uuid(function_name, namespace)
  elseif raw.type(name) ~= "string" then
    return K.invalid("uuid." .. function_name .. ": the name must be a string, got " .. K.type(name))
  end
  local hashed_high, hashed_low = unpack(">i8i8", digest(pack(">i8i8", high, low) .. name))
  return stamped(hashed_high, hashed_low, version), nil
end

function M.v3(namespace, name)
  return named("v3", 3, K.host.md5, namespace, name)
end

function M.v5(namespace, name)
  return named("v5", 5, K.host.sha1, namespace, name)
end

function M.validate(value)
  return halves_of(value) ~= nil
end

function M.version(text)
  local high = halves_of(text)
  if not high then
    return invalid_uuid("version", text)
  end
  return version_of(high), nil
end

function M.variant(text)
  local high, low = halves_of(text)
  if not high then
    return invalid_uuid("variant", text)
  end
  return variant_of(low), nil
end

--- What a UUID says: version and variant; the Unix seconds of versions 1 and 7; the node of version 1 as hex digits.
function M.parse(text)
  local high, low = halves_of(text)
  if not high then
    return invalid_uuid("parse", text)
  end
  local version = version_of(high)
  local said = { version = version, variant = variant_of(low) }
  if version == 1 then
    local ticks = (high & 0x0fff) << 48 | (high >> 16 & 0xffff) << 32 | high >> 32
    said.timestamp = (ticks - GREGORIAN_TO_UNIX_TICKS) // 10000000
    said.node = sformat("%012x", low & 0xffffffffffff)
  elseif version == 7 then
    said.timestamp = (high >> 16) // 1000
  end
  return said, nil
end

function M.format(text, form)
  local high, low = halves_of(text)
  if not high then
    return invalid_uuid("format", text)
  end
  local standard = text_of(high, low)
  if form == nil or form == "standard" then
    return standard, nil
  elseif form == "simple" then
    return (gsub(standard, "-", "")), nil
  elseif form == "urn" then
    return "urn:uuid:" .. standard, nil
  end
  return K.invalid("uuid.format: the form must be standard, simple or urn")
end

K.modules = K.modules or {}
K.modules.uuid = M
