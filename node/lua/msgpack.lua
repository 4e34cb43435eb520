-- msgpack: the form of every value that leaves a unit (contract section 3.4).
--
-- Responsible for: K.encode, K.encode_list, K.decode, K.decode_list and the payload forms (0xC1 in front).
-- Not responsible for: JSON and other foreign payloads.
--
-- Invariants:
--   * One value has one encoding: the same bytes in every process (keys in the order of `pairs`, shortest heads, one
--     NaN), because fingerprints are taken of them.
--   * Integers stay integers, floats stay floats. Text that is UTF-8 is `str`, any other `bin`.
--   * A table with exactly the keys 1..n is an array; so is the empty table. Any other is a map.
--   * An Error is extension type 1 around the map of K.error_to_wire.
--   * What cannot leave (functions, coroutines, other objects) is nil, and a field that holds it is left out.
--   * No code of the user runs here: metatables are not looked at, nothing can yield.

local K = ...
local raw = K.raw
local raw_type, raw_next, raw_error = raw.type, raw.next, raw.error
local math_type, huge = raw.math.type, raw.math.huge
local byte, char, sub = raw.string.byte, raw.string.char, raw.string.sub
local pack, unpack_bytes, utf8_len = raw.string.pack, raw.string.unpack, raw.utf8.len
local concat, sort = raw.table.concat, raw.table.sort
local metatable_of = raw.debug.getmetatable
local class_of, is_error = K.class_of, K.is_error
local sorted_keys = K.sorted_keys

K.limits = K.limits or {}
-- Nested tables. Deep enough for any document, shallow enough for every decoder on the way.
K.limits.depth_max = K.limits.depth_max or 128
-- Pieces of one encoded value: a table that holds the same table many times over could grow without bound.
K.limits.encode_pieces_max = K.limits.encode_pieces_max or 4000000

local EXT_ERROR = 1
local PAYLOAD = 0xC1 -- first byte of payloads that are ours; msgpack never uses it

-- Encoding ------------------------------------------------------------------------------------------------------------

local INT, FIXSTR = {}, {}
for i = 0, 127 do
  INT[i] = char(i)
end
for i = -32, -1 do
  INT[i] = char(i + 256)
end
for i = 0, 31 do
  FIXSTR[i] = char(0xA0 + i)
end

local NAN = "\xCB\x7F\xF8\0\0\0\0\0\0" -- the sign of a NaN differs between processors

local function integer_bytes(v)
  local small = INT[v]
  if small then
    return small
  elseif v >= 0 then
    if v < 0x100 then
      return pack("BB", 0xCC, v)
    elseif v < 0x10000 then
      return pack(">BI2", 0xCD, v)
    elseif v < 0x100000000 then
      return pack(">BI4", 0xCE, v)
    end
    return pack(">BI8", 0xCF, v)
  elseif v >= -0x80 then
    return pack("Bb", 0xD0, v)
  elseif v >= -0x8000 then
    return pack(">Bi2", 0xD1, v)
  elseif v >= -0x80000000 then
    return pack(">Bi4", 0xD2, v)
  end
  return pack(">Bi8", 0xD3, v)
end

local function number_bytes(v)
  if math_type(v) == "integer" then
    return integer_bytes(v)
  elseif v ~= v then
    return NAN
  end
  return pack(">Bd", 0xCB, v)
end

local function string_head(s)
  local n = #s
  if utf8_len(s) then
    if n < 32 then
      return FIXSTR[n]
    elseif n < 0x100 then
      return pack("BB", 0xD9, n)
    elseif n < 0x10000 then
      return pack(">BI2", 0xDA, n)
    end
    return pack(">BI4", 0xDB, n)
  elseif n < 0x100 then
    return pack("BB", 0xC4, n)
  elseif n < 0x10000 then
    return pack(">BI2", 0xC5, n)
  end
  return pack(">BI4", 0xC6, n)
end

local FIXARRAY, FIXMAP = {}, {}
for i = 0, 15 do
  FIXARRAY[i], FIXMAP[i] = char(0x90 + i), char(0x80 + i)
end

local function array_head(n)
  if n < 16 then
    return FIXARRAY[n]
  elseif n < 0x10000 then
    return pack(">BI2", 0xDC, n)
  end
  return pack(">BI4", 0xDD, n)
end

local function map_head(n)
  if n < 16 then
    return FIXMAP[n]
  elseif n < 0x10000 then
    return pack(">BI2", 0xDE, n)
  end
  return pack(">BI4", 0xDF, n)
end

local function ext_head(n, ext)
  if n < 0x100 then
    return pack("BBB", 0xC7, n, ext)
  elseif n < 0x10000 then
    return pack(">BI2B", 0xC8, n, ext)
  end
  return pack(">BI4B", 0xC9, n, ext)
end

-- The pieces of the value being encoded. One list per VM: encoding cannot yield, and each call starts at piece 1.
local out, count = {}, 0

local write

local function write_array(t, n, depth)
  count = count + 1
  out[count] = array_head(n)
  for i = 1, n do
    local problem = write(t[i], depth) -- present, so no metamethod is asked
    if problem then
      return problem
    end
  end
  return nil
end

-- Text used as a key -> its whole encoding. Programs use few keys many times; a program that makes them up does not
-- fill the memory.
local KEYS, key_count = {}, 0
local KEYS_MAX, KEY_BYTES_MAX = 2000, 64

local function key_bytes(k)
  local bytes = string_head(k) .. k
  if #k <= KEY_BYTES_MAX then
    if key_count >= KEYS_MAX then
      KEYS, key_count = {}, 0
    end
    KEYS[k], key_count = bytes, key_count + 1
  end
  return bytes
end

local FEW = 8 -- keys that insertion sorts faster than a call of the sort function

local function sort_strings(keys, n)
  if n > FEW then
    return sort(keys)
  end
  for i = 2, n do
    local k, j = keys[i], i - 1
    while j > 0 and k < keys[j] do
      keys[j + 1] = keys[j]
      j = j - 1
    end
    keys[j + 1] = k
  end
  return nil
end

--- A map, or an array whose keys the table does not hold in order.
local function write_map(t, depth)
  local keys, n, strings, longest = {}, 0, 0, 0
  local unsendable
  for k in raw_next, t do
    n = n + 1
    keys[n] = k
    if KEYS[k] then
      strings = strings + 1
    else
      local kind = raw_type(k)
      if kind == "string" then
        strings = strings + 1
      elseif kind == "number" then
        if math_type(k) ~= "integer" or k < 1 then
          longest = huge
        elseif k > longest then
          longest = k
        end
      elseif kind == "boolean" then
        longest = huge
      else
        -- Of several kinds always the same one is named: here keys come in the order of their addresses.
        local name = class_of(k) or kind
        if not unsendable or name < unsendable then
          unsendable = name
        end
      end
    end
  end
  if unsendable then
    return "a table key of type " .. unsendable .. " cannot be sent"
  end
  if strings == n then
    sort_strings(keys, n)
  elseif strings == 0 and longest == n then
    return write_array(t, n, depth)
  else
    keys = sorted_keys(t)
  end
  count = count + 1
  local head, entries = count, 0
  for i = 1, n do
    local k = keys[i]
    local v = t[k]
    local kind = raw_type(v)
    local at = count
    -- What cannot be sent leaves no field behind.
    if kind == "string" then
      count = at + 3
      out[at + 2], out[at + 3] = string_head(v), v
    elseif kind == "number" then
      count = at + 2
      out[at + 2] = number_bytes(v)
    elseif kind == "boolean" then
      count = at + 2
      out[at + 2] = v and "\xC3" or "\xC2"
    elseif kind == "table" and (not metatable_of(v) or is_error(v) or not class_of(v)) then
      count = at + 1
      out[count] = "" -- the key comes here
      local problem = write(v, depth)
      if problem then
        return problem
      end
    end
    if count > at then
      entries = entries + 1
      local bytes = KEYS[k]
      if not bytes then
        local key_kind = raw_type(k)
        bytes = key_kind == "string" and key_bytes(k) or key_kind == "number" and number_bytes(k) or k and "\xC3" or "\xC2"
      end
      out[at + 1] = bytes
    end
  end
  out[head] = map_head(entries)
  return nil
end

local function write_table(t, depth)
  if depth > K.limits.depth_max then
    return "too deep"
  elseif count > K.limits.encode_pieces_max then
    return "value too large"
  end
  local mt = metatable_of(t)
  if mt and class_of(t) then
    if not is_error(t) then
      count = count + 1
      out[count] = "\xC0"
      return nil
    end
    count = count + 1
    local head = count
    local problem = write_map(K.error_to_wire(t), depth + 1)
    if problem then
      return problem
    end
    local length = 0
    for i = head + 1, count do
      length = length + #out[i]
    end
    out[head] = ext_head(length, EXT_ERROR)
    return nil
  end
  local n = 0
  for k in raw_next, t do
    n = n + 1
    if k ~= n then
      return write_map(t, depth + 1)
    end
  end
  return write_array(t, n, depth + 1)
end

--- Append v; returns what is wrong with it, or nil.
function write(v, depth)
  local kind = raw_type(v)
  if kind == "string" then
    local at = count
    count = at + 2
    out[at + 1], out[at + 2] = string_head(v), v
    return nil
  elseif kind == "table" then
    return write_table(v, depth)
  end
  count = count + 1
  if kind == "number" then
    out[count] = number_bytes(v)
  elseif kind == "boolean" then
    out[count] = v and "\xC3" or "\xC2"
  else
    out[count] = "\xC0"
  end
  return nil
end

--- Whether a table reachable from v contains itself: the usual three colours, each table once. One that is merely very
--- deep must not use up the stack here.
local function is_cyclic(v, open, closed, depth)
  if raw_type(v) ~= "table" or closed[v] or depth > 10000 then
    return false
  elseif open[v] then
    return true
  end
  open[v] = true
  local inside = v
  if class_of(v) then
    inside = is_error(v) and K.error_to_wire(v) or {}
  end
  for _, item in raw_next, inside do
    if is_cyclic(item, open, closed, depth + 1) then
      return true
    end
  end
  open[v], closed[v] = nil, true
  return false
end

local KEEP_PIECES = 1000 -- a longer list is dropped after use, so that one large value does not stay in memory

local function taken()
  local bytes = concat(out, "", 1, count)
  if count > KEEP_PIECES then
    out = {}
  end
  return bytes
end

local function reason(problem, n, ...)
  out = {}
  if problem == "too deep" then
    local values = { ... }
    for i = 1, n do
      if is_cyclic(values[i], {}, {}, 1) then
        return "cyclic table"
      end
    end
    return "tables nested deeper than " .. K.limits.depth_max .. " levels cannot be sent"
  end
  return problem
end

--- v as msgpack, or nil and what is wrong with it.
function K.encode(v)
  count = 0
  local problem = write(v, 1)
  if problem then
    return nil, reason(problem, 1, v)
  end
  return taken()
end

--- The array of n values (nil allowed), or nil and what is wrong.
function K.encode_list(n, ...)
  count = 1
  out[1] = array_head(n)
  local values = { ... }
  for i = 1, n do
    local problem = write(values[i], 1)
    if problem then
      return nil, reason(problem, n, ...)
    end
  end
  return taken()
end

--- v as a payload of ours.
function K.encode_payload(v)
  count = 1
  out[1] = "\xC1"
  local problem = write(v, 1)
  if problem then
    return nil, reason(problem, 1, v)
  end
  return taken()
end

-- Decoding ------------------------------------------------------------------------------------------------------------

local function malformed(what)
  raw_error("malformed msgpack: " .. what, 0)
end

local read

local function read_string(s, pos, n)
  local past = pos + n
  if past > #s + 1 then
    malformed("it ends inside a string")
  end
  return sub(s, pos, past - 1), past
end

local function read_array(s, pos, n, depth)
  if n > #s - pos + 1 then
    malformed("it ends inside an array")
  end
  local t = {}
  for i = 1, n do
    t[i], pos = read(s, pos, depth + 1)
  end
  return t, pos
end

local function read_map(s, pos, n, depth)
  if n > #s - pos + 1 then
    malformed("it ends inside a map")
  end
  local t = {}
  depth = depth + 1
  for _ = 1, n do
    local k
    local b = byte(s, pos)
    if b and b >= 0xA0 and b < 0xC0 then -- the usual key; one that ends too early leaves no value to read
      local last = pos + b - 0xA0
      k = sub(s, pos + 1, last)
      pos = last + 1
    else
      k, pos = read(s, pos, depth)
      if k == nil or k ~= k then
        malformed("nil or NaN as a key")
      end
    end
    b = byte(s, pos)
    if b and b < 0x80 then
      t[k], pos = b, pos + 1
    else
      t[k], pos = read(s, pos, depth)
    end
  end
  return t, pos
end

local function read_ext(s, pos, n, depth)
  local ext = byte(s, pos)
  local past = pos + 1 + n
  if ext == nil or past > #s + 1 then
    malformed("it ends inside an extension")
  elseif ext ~= EXT_ERROR then
    malformed("unknown extension type " .. ext)
  end
  local wire, got = read(s, pos + 1, depth + 1)
  if got ~= past or raw_type(wire) ~= "table" or class_of(wire) then
    malformed("not an error")
  end
  return K.error_from_wire(wire), past
end

local function sized(format, size, f)
  return function(s, pos, depth)
    if pos + size - 1 > #s then
      malformed("it ends inside a length")
    end
    local n = unpack_bytes(format, s, pos)
    return f(s, pos + size, n, depth)
  end
end

local function scalar(format, size)
  return function(s, pos)
    if pos + size - 1 > #s then
      malformed("it ends inside a number")
    end
    return unpack_bytes(format, s, pos)
  end
end

local function fixext(n)
  return function(s, pos, depth)
    return read_ext(s, pos, n, depth)
  end
end

local readers = {
  [0xC0] = function(_, pos) return nil, pos end,
  [0xC2] = function(_, pos) return false, pos end,
  [0xC3] = function(_, pos) return true, pos end,
  [0xC4] = sized("B", 1, read_string), [0xC5] = sized(">I2", 2, read_string), [0xC6] = sized(">I4", 4, read_string),
  [0xC7] = sized("B", 1, read_ext), [0xC8] = sized(">I2", 2, read_ext), [0xC9] = sized(">I4", 4, read_ext),
  [0xCA] = scalar(">f", 4), [0xCB] = scalar(">d", 8),
  [0xCC] = scalar("B", 1), [0xCD] = scalar(">I2", 2), [0xCE] = scalar(">I4", 4),
  [0xCF] = function(s, pos)
    if pos + 7 > #s then
      malformed("it ends inside a number")
    end
    local v = unpack_bytes(">i8", s, pos)
    return v >= 0 and v or v + 0x1p64, pos + 8 -- above the integers of Lua: the nearest float
  end,
  [0xD0] = scalar("b", 1), [0xD1] = scalar(">i2", 2), [0xD2] = scalar(">i4", 4), [0xD3] = scalar(">i8", 8),
  [0xD4] = fixext(1), [0xD5] = fixext(2), [0xD6] = fixext(4), [0xD7] = fixext(8), [0xD8] = fixext(16),
  [0xD9] = sized("B", 1, read_string), [0xDA] = sized(">I2", 2, read_string), [0xDB] = sized(">I4", 4, read_string),
  [0xDC] = sized(">I2", 2, read_array), [0xDD] = sized(">I4", 4, read_array),
  [0xDE] = sized(">I2", 2, read_map), [0xDF] = sized(">I4", 4, read_map),
}

-- An Error's map and its details add levels of their own.
local DEPTH_SLACK = 4

--- The value at pos and the position after it.
function read(s, pos, depth)
  local b = byte(s, pos)
  if b == nil then
    malformed("it ends too early")
  elseif b < 0x80 then
    return b, pos + 1
  elseif b >= 0xE0 then
    return b - 256, pos + 1
  elseif b >= 0xA0 and b < 0xC0 then
    local last = pos + b - 0xA0
    if last > #s then
      malformed("it ends inside a string")
    end
    return sub(s, pos + 1, last), last + 1
  end
  if depth > K.limits.depth_max + DEPTH_SLACK then
    malformed("nested deeper than " .. K.limits.depth_max .. " levels")
  elseif b < 0x90 then
    return read_map(s, pos + 1, b - 0x80, depth)
  elseif b < 0xA0 then
    return read_array(s, pos + 1, b - 0x90, depth)
  end
  local reader = readers[b]
  if not reader then
    malformed("byte 0xC1")
  end
  return reader(s, pos + 1, depth)
end

--- The value at pos (default 1) and the position after it. Raises on malformed bytes.
function K.decode(bytes, pos)
  return read(bytes, pos or 1, 1)
end

--- The array at pos as its length and a list, so that nils are not lost from the count; then the position after it.
function K.decode_list(bytes, pos)
  pos = pos or 1
  local b = byte(bytes, pos)
  local n
  if b == nil then
    malformed("it ends too early")
  elseif b >= 0x90 and b < 0xA0 then
    n = b - 0x90
  elseif b == 0xDC and pos + 2 <= #bytes then
    n = unpack_bytes(">I2", bytes, pos + 1)
  elseif b == 0xDD and pos + 4 <= #bytes then
    n = unpack_bytes(">I4", bytes, pos + 1)
  else
    malformed("an array was expected")
  end
  local values, past = read(bytes, pos, 1)
  return n, values, past
end

--- The value of a payload of ours. Raises when it is none, is malformed or has something behind the value.
function K.decode_payload(bytes)
  if byte(bytes, 1) ~= PAYLOAD then
    malformed("not a payload of the mesh")
  end
  local v, past = read(bytes, 2, 1)
  if past ~= #bytes + 1 then
    malformed("bytes after the value")
  end
  return v
end
