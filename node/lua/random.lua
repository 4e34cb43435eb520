-- Random numbers: `math.random`, `math.randomseed`, and `K.random_u64` for ids.
--
-- xoshiro256** (Blackman and Vigna, public domain algorithm), two independent streams per unit derived from unit.seed:
-- one behind math.random, which user code may reseed, one behind ids, which it may not (a fixed seed in many units
-- would give them the same ids).
--
-- Of a unit, read here: seed; written: math_stream, id_stream.

local K = ...
local raw = K.raw

local raw_tonumber, raw_select, raw_error = raw.tonumber, raw.select, raw.error
local raw_rep, raw_sub, raw_unpack = raw.string.rep, raw.string.sub, raw.string.unpack
local tointeger, ult, integer_argument = raw.math.tointeger, raw.math.ult, K.arguments.integer
local math = K.libs.math

local function splitmix64(x)
  x = x + 0x9e3779b97f4a7c15
  local z = x
  z = (z ~ (z >> 30)) * 0xbf58476d1ce4e5b9
  z = (z ~ (z >> 27)) * 0x94d049bb133111eb
  return x, z ~ (z >> 31)
end

local function rotl(x, k)
  return (x << k) | (x >> (64 - k))
end

local function next_u64(s)
  local s0, s1, s2, s3 = s[1], s[2], s[3], s[4]
  local result = rotl(s1 * 5, 7) * 9
  s2 = s2 ~ s0
  s3 = s3 ~ s1
  s[1], s[2], s[3], s[4] = s0 ~ s3, s1 ~ s2, s2 ~ (s1 << 17), rotl(s3, 45)
  return result
end

--- A generator whose state takes in all of `words` (a list of integers) in order.
local function generator(words)
  local s = { 0, 0, 0, 0 }
  local x = #words
  for i = 1, #words do
    local at = (i - 1) & 3
    local z
    x, z = splitmix64(x ~ words[i])
    s[at + 1] = s[at + 1] ~ z ~ words[i]
  end
  for at = 1, 4 do
    local z
    x, z = splitmix64(x)
    s[at] = s[at] ~ z
  end
  if s[1] | s[2] | s[3] | s[4] == 0 then
    s[1] = 1 -- the one state the generator cannot leave
  end
  for _ = 1, 8 do
    next_u64(s)
  end
  return s
end

local function stream(unit, field, number)
  local s = unit[field]
  if not s then
    local seed = unit.deterministic and (unit.seed or "") or K.entropy(32)
    local words = { number, #seed }
    for at = 1, #seed, 8 do
      words[#words + 1] = raw_unpack("<i8", raw_sub(seed, at, at + 7) .. raw_rep("\0", at + 7 - #seed))
    end
    s = generator(words)
    unit[field] = s
  end
  return s
end

--- 64 random bits of the unit for ids; not influenced by math.randomseed. Those of a live unit cannot be guessed from
--- earlier ones.
function K.random_u64(unit)
  if not unit.deterministic then
    return (raw_unpack("<i8", K.entropy(8)))
  end
  return next_u64(stream(unit, "id_stream", 2))
end

function math.random(...)
  local n = raw_select("#", ...)
  local s = stream(K.current, "math_stream", 1)
  if n == 0 then
    return (next_u64(s) >> 11) * 0x1p-53
  elseif n > 2 then
    raw_error("wrong number of arguments")
  end
  local low, high = ...
  if n == 1 then
    high = integer_argument(low, 1, "random")
    if high == 0 then
      return next_u64(s)
    end
    low = 1
  else
    low, high = integer_argument(low, 1, "random"), integer_argument(high, 2, "random")
  end
  if low > high then
    raw_error("bad argument #" .. n .. " to 'random' (interval is empty)")
  end
  -- Reject what lies above the span, under the least mask that covers it: every value is equally likely.
  local span = high - low
  local mask = span
  mask = mask | (mask >> 1)
  mask = mask | (mask >> 2)
  mask = mask | (mask >> 4)
  mask = mask | (mask >> 8)
  mask = mask | (mask >> 16)
  mask = mask | (mask >> 32)
  local v = next_u64(s) & mask
  while ult(span, v) do
    v = next_u64(s) & mask
  end
  return low + v
end

--- Reseed; without arguments from the unit's own stream, so a replay gives the same.
function math.randomseed(...)
  local a, b = ...
  if raw_select("#", ...) == 0 then
    local s = stream(K.current, "math_stream", 1)
    a, b = next_u64(s), next_u64(s)
  else
    local n = raw_tonumber(a)
    if not n then
      raw_error("bad argument #1 to 'randomseed' (number expected, got " .. K.type(a) .. ")")
    end
    a = tointeger(n) or raw_unpack("<i8", raw.string.pack("<d", n))
    b = b ~= nil and integer_argument(b, 2, "randomseed") or 0
  end
  K.current.math_stream = generator({ 1, a, b })
  return a, b
end
