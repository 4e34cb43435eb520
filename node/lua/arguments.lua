-- How library functions read their arguments, and what they say when one is wrong: `K.arguments`.
--
-- `text` and `integer` raise at their own place, which K.blame turns into the user's. `wrong_type` and `compared` are
-- called by the library function itself and raise at level 3, the user's line.

local K = ...
local raw = K.raw

local raw_type, raw_tostring, raw_tonumber, raw_error = raw.type, raw.tostring, raw.tonumber, raw.error
local math_type, tointeger = raw.math.type, raw.math.tointeger
local byte, gsub, sformat = raw.string.byte, raw.string.gsub, raw.string.format

local M = {}
K.arguments = M

--- A string argument: Errors stand for their text; anything wrong is left for the C function to name.
function M.text(v)
  if raw_type(v) == "number" then
    return raw_tostring(v)
  end
  return K.error_text(v) or v
end

--- An integer argument, read as the C library does; index and name are for the error.
function M.integer(v, index, name)
  local n = raw_tonumber(v)
  if not n or raw_type(v) == "boolean" then
    raw_error("bad argument #" .. index .. " to '" .. name .. "' (number expected, got "
      .. (v == nil and "no value" or K.type(v)) .. ")")
  end
  local i = tointeger(n)
  if not i then
    raw_error("bad argument #" .. index .. " to '" .. name .. "' (number has no integer representation)")
  end
  return i
end

--- A number cut to an integer, nil when it has no such form (not a number, NaN, out of range).
function M.whole(value)
  if math_type(value) == "float" then
    return tointeger(value < 0 and raw.math.ceil(value) or raw.math.floor(value))
  end
  return math_type(value) and value
end

--- Raise: an argument has the wrong type.
function M.wrong_type(value, position, name, expected)
  raw.error(
    sformat("bad argument #%d to '%s' (%s expected, got %s)", position, name, expected, K.type(value)), 3
  )
end

--- Raise unless both sides of a comparison are objects of one class.
function M.compared(a, b, is_one, what)
  if not (is_one(a) and is_one(b)) then
    raw.error("attempt to compare a " .. what .. " with something else", 3)
  end
end

--- A text in Go's quotes, as its error messages show it.
function M.quoted(text)
  text = gsub(text, '[\0-\31"\\\128-\255]', function(c)
    if c == '"' or c == "\\" then
      return "\\" .. c
    end
    return sformat("\\x%02x", byte(c))
  end)
  return '"' .. text .. '"'
end
