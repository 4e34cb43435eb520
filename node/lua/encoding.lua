-- The modules `json` (contract section 13.1) and `base64` (13.4), in plain Lua.
--
-- Responsible for: text forms of values, in time linear in their size and with the same output in every process.
-- Not responsible for: the wire form of values that cross a unit boundary; JSON Schema, which is
-- `K.host.json_validate(schema_json, data_json, schema_is_table, data_is_table) -> nil | what is wrong`.
--
-- Metatables of users' tables are ignored both ways: what is encoded is what the table itself holds.

local K = ...
local raw = K.raw
local byte, find, gsub, match, rep, sub = raw.string.byte, raw.string.find, raw.string.gsub, raw.string.match,
  raw.string.rep, raw.string.sub
local char, pack, sformat, unpack = raw.string.char, raw.string.pack, raw.string.format, raw.string.unpack
local concat, next = raw.table.concat, raw.next
local math_type, tointeger, tonumber, type = raw.math.type, raw.math.tointeger, raw.tonumber, raw.type
local utf8_char, utf8_len = raw.utf8.char, raw.utf8.len

local ENCODE_DEPTH_MAX <const> = 128 -- contract
local DECODE_DEPTH_MAX <const> = 1000 -- no document is deeper; a hostile one must not fill the Lua stack
local REPLACEMENT <const> = "\u{FFFD}"

local function internal(message)
  return nil, K.new_error("Internal", message, false)
end

--- Text with every byte that is not part of valid UTF-8 replaced by U+FFFD, as JSON must be UTF-8.
local function valid_utf8(text)
  local _, bad = utf8_len(text)
  if not bad then
    return text
  end
  local out, from = {}, 1
  while bad do
    out[#out + 1] = sub(text, from, bad - 1)
    out[#out + 1] = REPLACEMENT
    from = bad + 1
    _, bad = utf8_len(text, from)
  end
  out[#out + 1] = sub(text, from)
  return concat(out)
end

-- Encoding. `write` appends to out and answers nil, or what is wrong.

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
  ["\t"] = "\\t" }
for code = 0, 31 do
  ESCAPES[char(code)] = ESCAPES[char(code)] or sformat("\\u%04x", code)
end

local function quoted(text)
  if #text > 4096 then
    K.spend(#text)
  end
  if find(text, "[\128-\255]") then
    text = valid_utf8(text)
  end
  if find(text, '[\0-\31"\\]') then
    text = gsub(text, '[\0-\31"\\]', ESCAPES)
  end
  return '"' .. text .. '"'
end

local function number_text(n)
  if math_type(n) == "integer" then
    return sformat("%d", n)
  elseif n ~= n or n == raw.math.huge or n == -raw.math.huge then
    return "null"
  end
  local integer = tointeger(n)
  if integer then
    return sformat("%d", integer)
  elseif n % 1 == 0 and n < 1e21 and n > -1e21 then
    return sformat("%.0f", n)
  end
  -- The shortest of the forms that read back as the same number.
  for digits = 15, 16 do
    local text = sformat("%." .. digits .. "g", n)
    if tonumber(text) == n then
      return text
    end
  end
  return sformat("%.17g", n)
end

--- What kind of JSON value a table is: the length of a list, or the sorted keys of an object; else nil and why neither.
local function shape_of(t)
  local count, highest, keys = 0, 0, nil
  for key in next, t do
    count = count + 1
    local kind = math_type(key) or type(key)
    if kind == "string" then
      keys = keys or {}
      keys[#keys + 1] = key
    elseif kind == "integer" and key >= 1 then
      highest = key > highest and key or highest
    else
      return nil, nil, "keys must be strings, or integers from 1"
    end
  end
  if not keys then
    if highest ~= count then
      return nil, nil, "a list has holes"
    end
    return count
  elseif #keys ~= count then
    return nil, nil, "a table mixes list items and named fields"
  end
  keys = K.sort_plain(keys, count)
  return nil, keys
end

local write

local function write_table(t, out, depth, open)
  if open[t] then
    return "a table contains itself"
  elseif depth > ENCODE_DEPTH_MAX then
    return sformat("tables are nested deeper than %d", ENCODE_DEPTH_MAX)
  end
  local length, keys, problem = shape_of(t)
  if problem then
    return problem
  end
  open[t] = true
  if length then
    out[#out + 1] = "["
    for i = 1, length do
      if i > 1 then
        out[#out + 1] = ","
      end
      problem = write(raw.rawget(t, i), out, depth + 1, open)
      if problem then
        return problem
      end
    end
    out[#out + 1] = "]"
  else
    out[#out + 1] = "{"
    for i = 1, #keys do
      local key = keys[i]
      out[#out + 1] = (i > 1 and "," or "") .. quoted(key) .. ":"
      problem = write(raw.rawget(t, key), out, depth + 1, open)
      if problem then
        return problem
      end
    end
    out[#out + 1] = "}"
  end
  open[t] = nil
  return nil
end

function write(value, out, depth, open)
  local kind = type(value)
  if kind == "string" then
    out[#out + 1] = quoted(value)
  elseif kind == "number" then
    out[#out + 1] = number_text(value)
  elseif kind == "boolean" then
    out[#out + 1] = value and "true" or "false"
  elseif kind == "table" and not K.class_of(value) then
    return write_table(value, out, depth, open)
  else
    local text = K.error_text(value)
    out[#out + 1] = text and quoted(text) or "null"
  end
  return nil
end

local json = {}

--- JSON text of a value, keys in byte order; nil, Error(Internal) for what JSON cannot say.
function json.encode(value)
  local out = {}
  local problem = write(value, out, 1, {})
  if problem then
    return internal("json.encode: " .. problem)
  end
  return (K.notice(concat(out))), nil
end

-- Decoding. A reader takes the text and the position of its first byte and answers the value and the position after
-- it; or nil, nil, what is wrong, where. Strict: RFC 8259 and nothing else.

local WHITESPACE <const> = "^[ \t\n\r]*()"

local UNESCAPED = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

--- The character of a \u escape whose backslash is at pos, and the position after it. Half a surrogate pair is U+FFFD.
local function read_unicode(text, pos)
  local hex = match(text, "^\\u(%x%x%x%x)", pos)
  if not hex then
    return nil, nil, "\\u needs four hexadecimal digits", pos
  end
  local code = tonumber(hex, 16)
  if code < 0xD800 or code > 0xDFFF then
    return utf8_char(code), pos + 6
  end
  local second = code < 0xDC00 and match(text, "^\\u([dD][c-fC-F]%x%x)", pos + 6)
  if not second then
    return REPLACEMENT, pos + 6
  end
  return utf8_char(0x10000 + ((code - 0xD800) << 10) + tonumber(second, 16) - 0xDC00), pos + 12
end

--- The string whose opening quote is at pos.
local function read_string(text, pos)
  local from = pos + 1
  local stop = find(text, '[\0-\31"\\]', from)
  if stop and byte(text, stop) == 34 then
    return sub(text, from, stop - 1), stop + 1
  end
  local parts = {}
  while stop do
    local found = byte(text, stop)
    parts[#parts + 1] = sub(text, from, stop - 1)
    if found == 34 then
      return concat(parts), stop + 1
    elseif found ~= 92 then
      return nil, nil, "a control character in a string must be escaped", stop
    end
    local escape = sub(text, stop + 1, stop + 1)
    local piece = UNESCAPED[escape]
    if piece then
      from = stop + 2
    elseif escape == "u" then
      local problem, at
      piece, from, problem, at = read_unicode(text, stop)
      if problem then
        return nil, nil, problem, at
      end
    else
      return nil, nil, "unknown escape in a string", stop
    end
    parts[#parts + 1] = piece
    stop = find(text, '[\0-\31"\\]', from)
  end
  return nil, nil, "a string does not end", pos
end

local function read_number(text, pos)
  local int, after = match(text, "^-?(%d+)()", pos)
  if not int then
    return nil, nil, "a number needs a digit", pos
  elseif byte(int) == 48 and #int > 1 then
    return nil, nil, "a number cannot begin with 0", pos
  end
  if byte(text, after) == 46 then
    after = match(text, "^%d+()", after + 1)
    if not after then
      return nil, nil, "a number needs a digit after its point", pos
    end
  end
  if find(text, "^[eE]", after) then
    after = match(text, "^[+-]?%d+()", after + 1)
    if not after then
      return nil, nil, "a number needs a digit in its exponent", pos
    end
  end
  -- Lua's reading is the wanted one: an integer if it has no point or exponent and fits into 64 bits, else a float.
  local value = tonumber(sub(text, pos, after - 1))
  if value == raw.math.huge or value == -raw.math.huge then
    return nil, nil, "a number is out of range", pos
  end
  return value, after
end

local read_value

local function read_array(text, pos, depth)
  local list, count = {}, 0
  pos = match(text, WHITESPACE, pos + 1)
  if byte(text, pos) == 93 then
    return list, pos + 1
  end
  while true do
    local value, after, problem, at = read_value(text, pos, depth + 1)
    if problem then
      return nil, nil, problem, at
    end
    count = count + 1
    list[count] = value
    pos = match(text, WHITESPACE, after)
    local separator = byte(text, pos)
    if separator == 93 then
      return list, pos + 1
    elseif separator ~= 44 then
      return nil, nil, "expected , or ] in an array", pos
    end
    pos = match(text, WHITESPACE, pos + 1)
  end
end

local function read_object(text, pos, depth)
  local object = {}
  pos = match(text, WHITESPACE, pos + 1)
  if byte(text, pos) == 125 then
    return object, pos + 1
  end
  while true do
    if byte(text, pos) ~= 34 then
      return nil, nil, "expected a string as a key of an object", pos
    end
    local key, value, after, problem, at
    key, after, problem, at = read_string(text, pos)
    if problem then
      return nil, nil, problem, at
    end
    pos = match(text, WHITESPACE, after)
    if byte(text, pos) ~= 58 then
      return nil, nil, "expected : after a key of an object", pos
    end
    value, after, problem, at = read_value(text, match(text, WHITESPACE, pos + 1), depth + 1)
    if problem then
      return nil, nil, problem, at
    end
    object[key] = value
    pos = match(text, WHITESPACE, after)
    local separator = byte(text, pos)
    if separator == 125 then
      return object, pos + 1
    elseif separator ~= 44 then
      return nil, nil, "expected , or } in an object", pos
    end
    pos = match(text, WHITESPACE, pos + 1)
  end
end

function read_value(text, pos, depth)
  local first = byte(text, pos)
  if first == 34 then
    return read_string(text, pos)
  elseif first == 123 or first == 91 then
    if depth > DECODE_DEPTH_MAX then
      return nil, nil, sformat("nested deeper than %d", DECODE_DEPTH_MAX), pos
    end
    return (first == 123 and read_object or read_array)(text, pos, depth)
  elseif first == 45 or first and first >= 48 and first <= 57 then
    return read_number(text, pos)
  elseif sub(text, pos, pos + 3) == "true" then
    return true, pos + 4
  elseif sub(text, pos, pos + 4) == "false" then
    return false, pos + 5
  elseif sub(text, pos, pos + 3) == "null" then
    return nil, pos + 4
  end
  return nil, nil, "expected a value", pos
end

--- The value of a JSON text; positions in errors count bytes from 1.
function json.decode(text)
  if type(text) == "string" and #text > 4096 then
    K.spend(#text)
  end
  if type(text) ~= "string" then
    return K.invalid("json.decode: a string is expected, got " .. K.type(text))
  elseif text == "" then
    return K.invalid("json.decode: the text is empty")
  end
  text = valid_utf8(text)
  local value, after, problem, at = read_value(text, match(text, WHITESPACE), 1)
  if not problem then
    at = match(text, WHITESPACE, after)
    if at <= #text then
      problem = "expected nothing after the value"
    end
  end
  if problem then
    if at > #text then
      problem = problem .. ", found the end of the text"
    end
    return internal(sformat("json.decode: %s at position %d", problem, at))
  end
  return value, nil
end

-- JSON Schema.

--- JSON text of a schema given as text or as a table; nil, Error when it is neither.
local function schema_text(schema)
  if schema == nil or schema == "" then
    return K.invalid("schema is required")
  elseif type(schema) == "string" then
    return schema
  elseif K.type(schema) ~= "table" then
    return K.invalid("schema must be a table or JSON text, got " .. K.type(schema))
  elseif next(schema) == nil then
    return "{}" -- encode would write the empty table as a list, which is no schema
  end
  local text, problem = json.encode(schema)
  if not text then
    return K.invalid("schema: " .. problem:message())
  end
  return text
end

local function check(schema, data_json, data_is_table)
  local schema_json, problem = schema_text(schema)
  if not schema_json then
    return false, problem
  end
  local wrong = K.host.json_validate(schema_json, data_json, type(schema) == "table", data_is_table)
  if wrong then
    return false, K.new_error("Invalid", wrong, false)
  end
  return true, nil
end

--- Whether a value fits a JSON Schema: true, or false and an Error.
function json.validate(schema, data)
  if schema == nil then
    return check(nil)
  elseif data == nil then
    return false, K.new_error("Invalid", "data is required", false)
  end
  local text, problem = json.encode(data)
  if not text then
    return false, K.new_error("Invalid", problem:message(), false)
  end
  return check(schema, text, true)
end

--- The same for data that is JSON text already.
function json.validate_string(schema, text)
  if schema == nil then
    return check(nil)
  elseif type(text) ~= "string" or text == "" then
    return false, K.new_error("Invalid", "data is required", false)
  end
  return check(schema, text, false)
end

-- base64: the standard alphabet with padding. Twelve bytes, that is sixteen characters, are converted per round.

local ALPHABET <const> = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local PAIRS, VALUES = {}, {} -- 12 bits -> two characters; character code -> 6 bits
for high = 0, 63 do
  local first = sub(ALPHABET, high + 1, high + 1)
  VALUES[byte(first)] = high
  for low = 0, 63 do
    PAIRS[high << 6 | low] = first .. sub(ALPHABET, low + 1, low + 1)
  end
end

local base64 = {}

--- Characters of the 24 bits in a number.
local function four_of(bits)
  return PAIRS[bits >> 12] .. PAIRS[bits & 0xfff]
end

function base64.encode(text)
  if type(text) ~= "string" then
    return K.invalid("base64.encode: a string is expected, got " .. K.type(text))
  end
  local out, count, pos, length = {}, 0, 1, #text
  while pos + 11 <= length do
    local a, b, c, d = unpack(">I3I3I3I3", text, pos)
    count = count + 1
    out[count] = PAIRS[a >> 12] .. PAIRS[a & 0xfff] .. PAIRS[b >> 12] .. PAIRS[b & 0xfff]
      .. PAIRS[c >> 12] .. PAIRS[c & 0xfff] .. PAIRS[d >> 12] .. PAIRS[d & 0xfff]
    pos = pos + 12
  end
  while pos <= length do
    local a, b, c = byte(text, pos, pos + 2)
    local four = four_of(a << 16 | (b or 0) << 8 | (c or 0))
    count = count + 1
    out[count] = c and four or sub(four, 1, b and 3 or 2) .. rep("=", b and 1 or 2)
    pos = pos + 3
  end
  return (K.notice(concat(out))), nil
end

local function bits_of(a, b, c, d)
  return VALUES[a] << 18 | VALUES[b] << 12 | VALUES[c] << 6 | VALUES[d]
end

local function illegal(position)
  return K.invalid(sformat("illegal base64 data at input byte %d", position))
end

--- Bytes of a base64 text. Line ends are skipped. The byte an error names counts from 0, as in Go.
function base64.decode(text)
  if type(text) ~= "string" then
    return K.invalid("base64.decode: a string is expected, got " .. K.type(text))
  end
  local given = text
  if find(text, "[\r\n]") then
    text = gsub(text, "[\r\n]", "")
  end
  local digits, length = #match(text, "^[A-Za-z0-9+/]*"), #text
  local padding = (4 - digits % 4) % 4
  if padding == 3 or length ~= digits + padding or padding > 0 and sub(text, digits + 1) ~= rep("=", padding) then
    local stray = find(given, "[^A-Za-z0-9+/\r\n]")
    return illegal(stray and stray - 1 or #given)
  end

  local out, count, pos = {}, 0, 1
  local last_whole = digits - digits % 4
  while pos + 15 <= last_whole do
    local a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p = byte(text, pos, pos + 15)
    count = count + 1
    out[count] = pack(">I3I3I3I3", bits_of(a, b, c, d), bits_of(e, f, g, h), bits_of(i, j, k, l), bits_of(m, n, o, p))
    pos = pos + 16
  end
  while pos <= digits do
    local a, b, c, d = byte(text, pos, pos + 3)
    local bits = bits_of(a, b, c == 61 and 65 or c, d == 61 and 65 or d)
    count = count + 1
    out[count] = sub(pack(">I3", bits), 1, pos > last_whole and 3 - padding or 3)
    pos = pos + 4
  end
  return (K.notice(concat(out))), nil
end

K.modules = K.modules or {}
K.modules.json = json
K.modules.base64 = base64
