-- Durations (contract section 12.1): integer nanoseconds, as objects and as Go writes them.
--
-- Responsible for: the Duration of the `time` module, and the readers of durations that the rest of the kernel uses
-- (`K.duration_ns`, `K.duration_ms_option`, `K.new_duration`).

local K = ...
local raw = K.raw
local byte, gsub, match = raw.string.byte, raw.string.gsub, raw.string.match
local sformat, sub = raw.string.format, raw.string.sub
local math_type, tointeger, ult = raw.math.type, raw.math.tointeger, raw.math.ult
local MIN, MAX = raw.math.mininteger, raw.math.maxinteger
local class_of, tonumber, tostring = K.class_of, raw.tonumber, raw.tostring
local whole, quoted, compared = K.arguments.whole, K.arguments.quoted, K.arguments.compared

local NS_PER_S <const> = 1000000000

local NS = K.key("ns")

local M = {
  NANOSECOND = 1, MICROSECOND = 1000, MILLISECOND = 1000000, SECOND = NS_PER_S, MINUTE = 60 * NS_PER_S,
  HOUR = 3600 * NS_PER_S,
}
K.modules = K.modules or {}
K.modules.time = M -- zones.lua and time.lua add the rest of it

local duration_methods = {}
local new_duration_object

local function is_duration(v) return class_of(v) == "Duration" end

--- Digits of a fraction without trailing zeros, with the point; "" for zero. width: decimal places that value has.
local function fraction(value, width)
  if value == 0 then
    return ""
  end
  return "." .. gsub(sformat("%0" .. width .. "d", value), "0+$", "")
end

local function duration_text(ns)
  if ns < 0 then
    -- The smallest integer has no positive twin.
    return "-" .. (ns == MIN and "2562047h47m16.854775808s" or duration_text(-ns))
  elseif ns == 0 then
    return "0s"
  elseif ns < 1000 then
    return sformat("%dns", ns)
  elseif ns < 1000000 then
    return sformat("%d%sµs", ns // 1000, fraction(ns % 1000, 3))
  elseif ns < NS_PER_S then
    return sformat("%d%sms", ns // 1000000, fraction(ns % 1000000, 6))
  end
  local s = ns // NS_PER_S
  local text = sformat("%d%ss", s % 60, fraction(ns % NS_PER_S, 9))
  if s >= 60 then
    text = sformat("%dm", s // 60 % 60) .. text
  end
  if s >= 3600 then
    text = sformat("%dh", s // 3600) .. text
  end
  return text
end

new_duration_object = K.class("Duration", duration_methods, {
  __tostring = function(d) return duration_text(d[NS]) end,
  __eq = function(a, b) return is_duration(a) and is_duration(b) and a[NS] == b[NS] end,
  __lt = function(a, b)
    compared(a, b, is_duration, "Duration")
    return a[NS] < b[NS]
  end,
  __le = function(a, b)
    compared(a, b, is_duration, "Duration")
    return a[NS] <= b[NS]
  end,
})

--- A Duration of integer nanoseconds.
function K.new_duration(ns)
  return new_duration_object({ [NS] = ns })
end

--- Division that cuts toward zero, as Go does.
local function quotient(ns, unit)
  local q = ns // unit
  return q < 0 and q * unit ~= ns and q + 1 or q
end

--- The whole and the fractional part apart, so that long durations lose no more precision than they must.
local function in_unit(ns, unit)
  local q = quotient(ns, unit)
  return q + (ns - q * unit) / unit
end

function duration_methods:nanoseconds() return self[NS] end
function duration_methods:microseconds() return quotient(self[NS], 1000) end
function duration_methods:milliseconds() return quotient(self[NS], 1000000) end
function duration_methods:seconds() return in_unit(self[NS], M.SECOND) end
function duration_methods:minutes() return in_unit(self[NS], M.MINUTE) end
function duration_methods:hours() return in_unit(self[NS], M.HOUR) end

local UNITS = {
  ns = 1, us = M.MICROSECOND, ["µs"] = M.MICROSECOND, ["μs"] = M.MICROSECOND, ms = M.MILLISECOND, s = M.SECOND,
  m = M.MINUTE, h = M.HOUR,
}

--- Decimal digits as an unsigned integer up to 2^63 (which reads as the smallest integer); nil above.
local function unsigned_of(digits)
  digits = match(digits, "^0*(.*)$")
  if digits == "9223372036854775808" then
    return MIN
  end
  return digits == "" and 0 or #digits < 20 and tointeger(tonumber(digits)) or nil
end

--- Nanoseconds of the decimal places before a unit. Places that no longer fit into 64 bits are dropped.
local function fraction_of(digits, unit)
  local value, scale = 0, 1.0
  for i = 1, #digits do
    local longer = value <= MAX // 10 and value * 10 + byte(digits, i) - 48 or -1
    if longer < 0 then
      break
    end
    value, scale = longer, scale * 10
  end
  return tointeger(raw.math.floor(value * (unit / scale)))
end

--- The nanoseconds of a Go duration text, or nil and Go's complaint. Sums are unsigned so that -2^63 ns can be written.
local function parse_duration_text(text)
  local bad = "time: invalid duration " .. quoted(text)
  local sign, pos = match(text, "^([+-]?)()")
  if sub(text, pos) == "0" then
    return 0
  elseif pos > #text then
    return nil, bad
  end
  local total = 0
  while pos <= #text do
    local int, frac, unit_pos = match(text, "^(%d*)%.?(%d*)()", pos)
    if int == "" and frac == "" then
      return nil, bad
    end
    local value = unsigned_of(int)
    if not value then
      return nil, bad
    end
    local name, rest = match(text, "^([^%.%d]+)()", unit_pos)
    if not name then
      return nil, "time: missing unit in duration " .. quoted(text)
    end
    local unit = UNITS[name]
    if not unit then
      return nil, "time: unknown unit " .. quoted(name) .. " in duration " .. quoted(text)
    end
    if unit > 1 and (value < 0 or value > MAX // unit) then
      return nil, bad
    end
    value = value * unit
    value = value + fraction_of(frac, unit)
    total = total + value
    if ult(MIN, value) or ult(MIN, total) then
      return nil, bad
    end
    pos = rest
  end
  if sign == "-" then
    return -total
  elseif total < 0 then
    return nil, bad
  end
  return total
end

--- A duration given as a count of `unit` nanoseconds, Go text or Duration: nanoseconds, or nil and what is wrong.
local function read_duration(value, unit)
  if is_duration(value) then
    return value[NS]
  elseif raw.type(value) == "string" then
    return parse_duration_text(value)
  elseif math_type(value) == "integer" and (unit == 1 or value <= MAX // unit and value >= -(MAX // unit)) then
    return value * unit
  elseif math_type(value) == "float" then
    local ns = whole(value * unit)
    if ns then
      return ns
    end
  elseif not math_type(value) then
    return nil, "a duration is expected, got " .. K.type(value)
  end
  return nil, "time: invalid duration " .. tostring(value)
end

local function duration_or_invalid(value, unit, what)
  local ns, problem = read_duration(value, unit)
  if ns then
    return ns
  end
  return K.invalid((what and what .. ": " or "") .. problem)
end

--- Integer nanoseconds of a duration argument: number of nanoseconds, Go text or Duration; else nil, Error(Invalid)
--- that begins with `what`.
function K.duration_ns(value, what)
  return duration_or_invalid(value, 1, what)
end

--- The same for options whose plain numbers are milliseconds. The answer is in nanoseconds too.
function K.duration_ms_option(value, what)
  return duration_or_invalid(value, M.MILLISECOND, what)
end

function M.parse_duration(value)
  local ns, problem = K.duration_ns(value)
  if not ns then
    return nil, problem
  end
  return K.new_duration(ns)
end
