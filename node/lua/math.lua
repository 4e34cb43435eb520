-- The `math` library of units, without its random numbers (random.lua).
--
-- The functions that Lua 5.4 has dropped are written here: the C library may have been built without them.

local K = ...
local raw = K.raw

local raw_next, raw_unpack, integer_argument = raw.next, raw.string.unpack, K.arguments.integer

local math = {}
for name, v in raw_next, raw.math do
  math[name] = v
end
K.libs.math = math

function math.pow(x, y)
  return x ^ y
end

function math.log10(x)
  return raw.math.log(x, 10)
end

math.atan2 = function(y, x)
  return raw.math.atan(y, x)
end

function math.cosh(x)
  local e = raw.math.exp(raw.math.abs(x))
  return (e + 1 / e) / 2
end

function math.sinh(x)
  if raw.math.abs(x) < 0.5 then
    -- The difference of two nearly equal exponentials loses digits; the series does not.
    local term, sum, square = x + 0.0, x + 0.0, x * x
    for i = 2, 16, 2 do
      term = term * square / (i * (i + 1))
      sum = sum + term
    end
    return sum
  end
  local e = raw.math.exp(x)
  return (e - 1 / e) / 2
end

function math.tanh(x)
  if x > 20 then
    return 1.0
  elseif x < -20 then
    return -1.0
  end
  return math.sinh(x) / math.cosh(x)
end

function math.frexp(x)
  x = x + 0.0
  if x == 0 or x ~= x or x == raw.math.huge or x == -raw.math.huge then
    return x, 0
  end
  local shift = 0
  if raw.math.abs(x) < 0x1p-1022 then
    x, shift = x * 0x1p54, -54
  end
  local bits = raw_unpack("<i8", raw.string.pack("<d", x))
  local exponent = (bits >> 52) & 0x7ff
  return raw_unpack("<d", raw.string.pack("<i8", bits & ~(0x7ff << 52) | (1022 << 52))), exponent - 1022 + shift
end

function math.ldexp(m, e)
  e = raw.math.max(-2200, raw.math.min(2200, integer_argument(e, 2, "ldexp")))
  while e > 1000 do
    m, e = m * 0x1p1000, e - 1000
  end
  while e < -1000 do
    m, e = m * 0x1p-1000, e + 1000
  end
  return m * 2.0 ^ e
end
