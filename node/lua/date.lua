-- The `os` library of units: dates as Lua has them. The `time` module is in time.lua.
--
-- The clock is K.now, in UTC. Formatting is done here: the C library would use the process' locale and zone.
--
-- Of a unit, read here: now, started (ns).

local K = ...
local raw = K.raw

local raw_next, raw_tostring, raw_tonumber, raw_error = raw.next, raw.tostring, raw.tonumber, raw.error
local raw_format, raw_find, raw_match = raw.string.format, raw.string.find, raw.string.match
local raw_gsub, raw_sub, concat, tointeger = raw.string.gsub, raw.string.sub, raw.table.concat, raw.math.tointeger
local text, integer_argument, calendar = K.arguments.text, K.arguments.integer, K.calendar
local days_of, civil_of, year_day_of = calendar.days_of, calendar.civil_of, calendar.year_day_of

local os = { platform = "linux" } -- one value on all nodes: a workflow may move between them
K.libs.os = os

local DAY_S = 86400

local function broken_down(seconds)
  local days, rest = seconds // DAY_S, seconds % DAY_S
  local year, month, day = civil_of(days)
  return {
    year = year, month = month, day = day, hour = rest // 3600, min = rest % 3600 // 60, sec = rest % 60,
    wday = (days + 4) % 7 + 1, yday = year_day_of(days, year), isdst = false,
  }
end

local function date_field(t, name, default)
  local v = t[name]
  if v == nil then
    if default then
      return default
    end
    raw_error("field '" .. name .. "' missing in date table")
  end
  local i = raw_tonumber(v) and tointeger(raw_tonumber(v))
  if not i then
    raw_error("field '" .. name .. "' is not an integer")
  elseif i < -(1 << 31) or i >= 1 << 31 then
    raw_error("field '" .. name .. "' is out-of-bound")
  end
  return i
end

function os.time(t)
  if t == nil then
    return K.now() // 1000000000
  elseif K.type(t) ~= "table" then
    raw_error("bad argument #1 to 'time' (table expected, got " .. K.type(t) .. ")")
  end
  local year, month, day = date_field(t, "year"), date_field(t, "month"), date_field(t, "day")
  local months = year * 12 + month - 1
  local seconds = days_of(months // 12, months % 12 + 1, day) * DAY_S
    + date_field(t, "hour", 12) * 3600 + date_field(t, "min", 0) * 60 + date_field(t, "sec", 0)
  for name, v in raw_next, broken_down(seconds) do
    t[name] = v
  end
  return seconds
end

local function two(n)
  return raw_format("%02d", n)
end

local function iso_week(d)
  -- The ISO week belongs to the year that holds its Thursday.
  local thursday = days_of(d.year, 1, 1) + d.yday - 1 - (d.wday + 5) % 7 + 3
  local of = broken_down(thursday * DAY_S)
  return of.year, (of.yday - 1) // 7 + 1
end

local formats
formats = {
  a = function(d) return calendar.DAYS_SHORT[d.wday] end,
  A = function(d) return calendar.DAYS[d.wday] end,
  b = function(d) return calendar.MONTHS_SHORT[d.month] end,
  B = function(d) return calendar.MONTHS[d.month] end,
  C = function(d) return two(d.year // 100) end,
  d = function(d) return two(d.day) end,
  e = function(d) return raw_format("%2d", d.day) end,
  g = function(d) return two((iso_week(d)) % 100) end,
  G = function(d) return raw_tostring((iso_week(d))) end,
  H = function(d) return two(d.hour) end,
  I = function(d) return two((d.hour + 11) % 12 + 1) end,
  j = function(d) return raw_format("%03d", d.yday) end,
  m = function(d) return two(d.month) end,
  M = function(d) return two(d.min) end,
  n = function() return "\n" end,
  p = function(d) return d.hour < 12 and "AM" or "PM" end,
  S = function(d) return two(d.sec) end,
  t = function() return "\t" end,
  u = function(d) return raw_tostring((d.wday + 5) % 7 + 1) end,
  U = function(d) return two((d.yday + 7 - d.wday) // 7) end,
  V = function(d) local _, week = iso_week(d) return two(week) end,
  w = function(d) return raw_tostring(d.wday - 1) end,
  W = function(d) return two((d.yday + 6 - (d.wday + 5) % 7) // 7) end,
  y = function(d) return two(d.year % 100) end,
  Y = function(d) return raw_tostring(d.year) end,
  z = function() return "+0000" end,
  Z = function() return "UTC" end,
  ["%"] = function() return "%" end,
}

local composed = {
  c = "%a %b %e %H:%M:%S %Y", D = "%m/%d/%y", F = "%Y-%m-%d", h = "%b", r = "%I:%M:%S %p", R = "%H:%M",
  T = "%H:%M:%S", x = "%m/%d/%y", X = "%H:%M:%S",
}

local function format_date(format, d)
  local parts, p = {}, 1
  while true do
    local at = raw_find(format, "%", p, true)
    parts[#parts + 1] = raw_sub(format, p, (at or 0) - 1)
    if not at then
      return concat(parts)
    end
    local modified, c = raw_match(format, "^%%([EO]?)(.?)", at)
    local f, longer = formats[c], composed[c]
    if modified == "E" and not raw_find(c, "^[cCxXyY]") or modified == "O" and not raw_find(c, "^[deHImMSuUVwWy]")
      or not f and not longer then
      raw_error("bad argument #1 to 'date' (invalid conversion specifier '%" .. modified .. c .. "')")
    end
    parts[#parts + 1] = f and f(d) or format_date(longer, d)
    p = at + 1 + #modified + #c
  end
end

function os.date(format, time)
  format = text(format == nil and "%c" or format)
  local seconds = time == nil and K.now() // 1000000000 or integer_argument(time, 2, "date")
  if seconds < -67768040609740800 or seconds > 67768036191676799 then -- the range of a 32-bit year
    raw_error("date result cannot be represented in this installation")
  end
  format = raw_gsub(format, "^!", "")
  local d = broken_down(seconds)
  if raw_sub(format, 1, 2) == "*t" then
    return d
  end
  return format_date(format, d)
end

--- Seconds since the unit began.
function os.clock()
  local now = K.now()
  return (now - (K.current.started or now)) / 1e9
end

function os.difftime(a, b)
  return integer_argument(a, 1, "difftime") - integer_argument(b, 2, "difftime") + 0.0
end
