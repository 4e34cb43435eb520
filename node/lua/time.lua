-- The `time` module (contract section 12.1): Time, Duration and Location, Go layouts, calendar arithmetic.
--
-- Responsible for: everything of `time` that does not wait, and the readers of durations the rest of the kernel uses
-- (`K.duration_ns`, `K.duration_ms_option`, `K.new_duration`, `K.new_time`).
-- Not responsible for: `sleep`, `after`, `timer`, `ticker`; the rules of time zones, which come from
-- `K.host.zone(name, unix_s) -> offset_s, abbreviation | nil`.
--
-- A Time is a pair (Unix seconds, nanoseconds 0..999999999) and the Location it is shown in, so the zero time of year 1
-- and years beyond 9999 work although they do not fit into 64 bits of nanoseconds.
-- The local zone of every unit is UTC, whatever the machine's zone is: two nodes must show the same wall clock.
-- Caches hold pure facts (compiled layouts, offsets of a zone on a day) and never objects, so one unit cannot see
-- through an object's identity or sequence number what another one did.

local K = ...
local raw = K.raw
local byte, find, gsub, lower, match, rep = raw.string.byte, raw.string.find, raw.string.gsub, raw.string.lower,
  raw.string.match, raw.string.rep
local sformat, sub, concat = raw.string.format, raw.string.sub, raw.table.concat
local math_type, tointeger, ult = raw.math.type, raw.math.tointeger, raw.math.ult
local MIN, MAX = raw.math.mininteger, raw.math.maxinteger
local class_of, tonumber, tostring = K.class_of, raw.tonumber, raw.tostring

local NS_PER_S <const> = 1000000000
local DAY_S <const> = 86400
local YEAR_1_S <const> = -62135596800 -- 0001-01-01 00:00:00 UTC, Go's zero time
local LAYOUTS_MAX <const> = 64 -- compiled layouts kept per VM; programs use a handful
local LAYOUT_BYTES_MAX <const> = 256 -- longer ones are compiled each time, so that no unit can fill the VM with them
local ZONE_DAYS_MAX <const> = 4096 -- cached days of all zones of a VM

local SEC, NSEC, LOC = K.key("sec"), K.key("nsec"), K.key("location")
local NS, ZONE = K.key("ns"), K.key("zone")

local MONTHS = {
  "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
  "December",
}
local DAYS = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" }
local MONTHS_SHORT, DAYS_SHORT = {}, {}
for i = 1, #MONTHS do
  MONTHS_SHORT[i] = sub(MONTHS[i], 1, 3)
end
for i = 1, #DAYS do
  DAYS_SHORT[i] = sub(DAYS[i], 1, 3)
end

local M = {
  NANOSECOND = 1, MICROSECOND = 1000, MILLISECOND = 1000000, SECOND = NS_PER_S, MINUTE = 60 * NS_PER_S,
  HOUR = 3600 * NS_PER_S,
  RFC3339 = "2006-01-02T15:04:05Z07:00", RFC3339NANO = "2006-01-02T15:04:05.999999999Z07:00",
  RFC822 = "02 Jan 06 15:04 MST", RFC822Z = "02 Jan 06 15:04 -0700", RFC850 = "Monday, 02-Jan-06 15:04:05 MST",
  RFC1123 = "Mon, 02 Jan 2006 15:04:05 MST", RFC1123Z = "Mon, 02 Jan 2006 15:04:05 -0700", KITCHEN = "3:04PM",
  STAMP = "Jan _2 15:04:05", STAMP_MILLI = "Jan _2 15:04:05.000", STAMP_MICRO = "Jan _2 15:04:05.000000",
  STAMP_NANO = "Jan _2 15:04:05.000000000", DATE_TIME = "2006-01-02 15:04:05", DATE_ONLY = "2006-01-02",
  TIME_ONLY = "15:04:05",
}
for i = 1, #MONTHS do
  M[raw.string.upper(MONTHS[i])] = i
end
for i = 1, #DAYS do
  M[raw.string.upper(DAYS[i])] = i - 1
end

-- Arguments. These helpers are called by the library function itself, so level 3 is the user's line.

local function wrong_type(value, position, name, expected)
  raw.error(
    sformat("bad argument #%d to '%s' (%s expected, got %s)", position, name, expected, K.type(value)), 3
  )
end

--- A number cut to an integer, nil when it has no such form (not a number, NaN, out of range).
local function whole(value)
  if math_type(value) == "float" then
    return tointeger(value < 0 and raw.math.ceil(value) or raw.math.floor(value))
  end
  return math_type(value) and value
end

--- A text in Go's quotes, as its error messages show it.
local function quoted(text)
  text = gsub(text, '[\0-\31"\\\128-\255]', function(c)
    if c == '"' or c == "\\" then
      return "\\" .. c
    end
    return sformat("\\x%02x", byte(c))
  end)
  return '"' .. text .. '"'
end

-- Calendar: the proleptic Gregorian one, with years counted from March so that a leap day ends its year.

--- Days from 1970-01-01 to a date. month 1..12; day is any integer.
local function days_of(year, month, day)
  if month < 3 then
    year, month = year - 1, month + 12
  end
  local era = year // 400
  local of_era = year - era * 400
  return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + (153 * (month - 3) + 2) // 5 + day - 719469
end

--- Year, month and day of a number of days since 1970-01-01.
local function civil_of(days)
  days = days + 719468
  local era = days // 146097
  local of_era = days - era * 146097
  local year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
  local of_year = of_era - (year * 365 + year // 4 - year // 100)
  local from_march = (5 * of_year + 2) // 153
  local day = of_year - (153 * from_march + 2) // 5 + 1
  local month = from_march < 10 and from_march + 3 or from_march - 9
  return year + era * 400 + (month < 3 and 1 or 0), month, day
end

local function year_day_of(days, year)
  return days - days_of(year, 1, 1) + 1
end

-- Zones. A zone is {name, offset, abbr} with a fixed offset, or {name, days} whose offsets come from the host.

local zones, cached_days = {}, 0

--- Seconds east of UTC and the abbreviation in force in a zone at a Unix time.
local function zone_lookup(zone, unix_s)
  if zone.offset then
    return zone.offset, zone.abbr
  end
  local day = unix_s // DAY_S
  local known = zone.days[day]
  if known then
    return known.offset, known.abbr
  end
  local ask = K.host.zone
  local offset, abbr = ask(zone.name, unix_s)
  -- No zone changes twice within a day (the shortest interval in the zone database is seven days), so equal
  -- ends mean one offset for all of the day.
  local first, first_abbr = ask(zone.name, day * DAY_S)
  local last, last_abbr = ask(zone.name, day * DAY_S + DAY_S - 1)
  if first == last and first_abbr == last_abbr then
    if cached_days >= ZONE_DAYS_MAX then
      for _, each in raw.pairs(zones) do
        each.days = {}
      end
      cached_days = 0
    end
    zone.days[day] = { offset = offset, abbr = abbr }
    cached_days = cached_days + 1
  end
  return offset, abbr
end

--- The Unix time of a wall clock reading (seconds as if it were UTC). As in Go, a reading that a zone skips or has
--- twice is taken with the offset on one side of the change, found by asking at the reading and again at the result.
local function unix_of_wall(wall_s, zone)
  local offset = zone_lookup(zone, wall_s)
  if offset ~= 0 then
    offset = zone_lookup(zone, wall_s - offset)
  end
  return wall_s - offset
end

--- The offset a zone abbreviation means around a Unix time read as if it were UTC; nil when the zone never used it.
local function offset_of_abbr(zone, abbr, unix_s)
  for days = -1, 1 do
    local offset, name = zone_lookup(zone, unix_s + days * DAY_S)
    if name == abbr then
      local _, in_force = zone_lookup(zone, unix_s - offset)
      if in_force == abbr then
        return offset
      end
    end
  end
  if zone.offset then
    return zone.abbr == abbr and zone.offset or nil
  end
  -- Not in force then ("EST" in July): any use of it counts. Built once per zone, a probe per quarter.
  if not zone.by_abbr then
    local _, first_abbr = K.host.zone(zone.name, YEAR_1_S)
    local by_abbr = { [first_abbr] = (K.host.zone(zone.name, YEAR_1_S)) }
    for probe = days_of(1850, 1, 1), days_of(2040, 1, 1), 91 do
      local offset, name = K.host.zone(zone.name, probe * DAY_S)
      by_abbr[name] = by_abbr[name] or offset
    end
    zone.by_abbr = by_abbr
  end
  return zone.by_abbr[abbr]
end

local location_methods = {}
local new_location_object = K.class("Location", location_methods, {
  __tostring = function(l) return l[ZONE].name end,
  __eq = function(a, b)
    if class_of(a) ~= "Location" or class_of(b) ~= "Location" then
      return false
    end
    a, b = a[ZONE], b[ZONE]
    return a.name == b.name and a.offset == b.offset
  end,
})

local function new_location(zone)
  return new_location_object({ [ZONE] = zone })
end

function location_methods:string() return self[ZONE].name end

M.utc = new_location({ name = "UTC", offset = 0, abbr = "UTC" })
M.localtz = new_location({ name = "Local", offset = 0, abbr = "UTC" })
-- Made outside any unit: numbers below all others keep their order as table keys defined.
M.utc[K.SEQ], M.localtz[K.SEQ] = -2, -1

function M.fixed_zone(name, seconds)
  if raw.type(name) ~= "string" then
    wrong_type(name, 1, "time.fixed_zone", "string")
  end
  local offset = whole(seconds)
  if not offset then
    wrong_type(seconds, 2, "time.fixed_zone", "integer")
  end
  return new_location({ name = name, offset = offset, abbr = name })
end

function M.load_location(name)
  if raw.type(name) ~= "string" then
    wrong_type(name, 1, "time.load_location", "string")
  elseif name == "" then
    return K.invalid("time.load_location: the name is empty")
  elseif name == "UTC" then
    return M.utc
  elseif name == "Local" then
    return M.localtz
  end
  local zone = zones[name]
  if not zone then
    if not K.host.zone(name, 0) then
      return nil, K.new_error("NotFound", "unknown time zone " .. name, false)
    end
    zone = { name = name, days = {} }
    zones[name] = zone
  end
  return new_location(zone)
end

-- Durations: integer nanoseconds.

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

local function compared(a, b, is_one, what)
  if not (is_one(a) and is_one(b)) then
    raw.error("attempt to compare a " .. what .. " with something else", 3)
  end
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

-- Layouts. A layout is literal text with reference-time elements in it; it is compiled to a list of
-- {literal before, key, text, digits} whose last item has no key.

-- Per first letter the elements in the order they are tried.
local ELEMENTS = {
  J = { "January", "Jan" }, M = { "Monday", "Mon", "MST" },
  ["0"] = { "01", "02", "03", "04", "05", "06", "002" }, ["1"] = { "15", "1" }, ["2"] = { "2006", "2" },
  _ = { "_2", "__2" }, ["3"] = { "3" }, ["4"] = { "4" }, ["5"] = { "5" }, P = { "PM" }, p = { "pm" },
  ["-"] = { "-070000", "-07:00:00", "-0700", "-07:00", "-07" },
  Z = { "Z070000", "Z07:00:00", "Z0700", "Z07:00", "Z07" },
}

--- The element that starts at a position of a layout: its key and text, or nil.
local function element_at(layout, pos)
  local first = sub(layout, pos, pos)
  if first == "." or first == "," then
    -- A fraction is a run of one digit with no other digit after it; its length is the number of places.
    local digits = match(layout, "^0+", pos + 1) or match(layout, "^9+", pos + 1)
    if digits and not find(layout, "^%d", pos + 1 + #digits) then
      return "." .. sub(digits, 1, 1), first .. digits
    end
    return nil
  end
  local candidates = ELEMENTS[first]
  if candidates and sub(layout, pos, pos + 4) ~= "_2006" then
    for i = 1, #candidates do
      local text = candidates[i]
      if sub(layout, pos, pos + #text - 1) == text then
        -- "Jan" in "Janitor" and "Mon" in "Month" are words.
        if not ((text == "Jan" or text == "Mon") and find(layout, "^%l", pos + 3)) then
          return text, text
        end
      end
    end
  end
  return nil
end

local layouts, layout_count = {}, 0

local function compile(layout)
  local compiled = layouts[layout]
  if compiled then
    return compiled
  end
  compiled = {}
  local literal_from, pos = 1, 1
  while pos <= #layout do
    -- Jump to the next byte an element can begin with.
    pos = find(layout, "[JM0-5_Pp%-Z%.,]", pos) or #layout + 1
    local key, text = element_at(layout, pos)
    if key then
      compiled[#compiled + 1] = {
        literal = sub(layout, literal_from, pos - 1), key = key, text = text, digits = #text - 1,
      }
      pos = pos + #text
      literal_from = pos
    else
      pos = pos + 1
    end
  end
  compiled[#compiled + 1] = { literal = sub(layout, literal_from) }
  if #layout <= LAYOUT_BYTES_MAX then
    if layout_count >= LAYOUTS_MAX then
      layouts, layout_count = {}, 0
    end
    layouts[layout], layout_count = compiled, layout_count + 1
  end
  return compiled
end

-- The two tables of the elements. FORMAT[key](c, element) answers the text for the clock reading c.
-- PARSE[key](value, pos, into, element, next) notes what it read in `into` and answers the position after it, or nil
-- for text that does not fit, or nil and the name of the field that is out of range.

local FORMAT, PARSE = {}, {}

local function padded(n, width)
  return n < 0 and sformat("-%0" .. width .. "d", -n) or sformat("%0" .. width .. "d", n)
end

local function hour_of_12(hour)
  return (hour + 11) % 12 + 1
end

local function put(pattern, value_of)
  return function(c) return sformat(pattern, value_of(c)) end
end

local function field(name)
  return function(c) return c[name] end
end

FORMAT["2006"] = function(c) return padded(c.year, 4) end
FORMAT["06"] = function(c) return sformat("%02d", (c.year < 0 and -c.year or c.year) % 100) end
FORMAT["January"] = function(c) return MONTHS[c.month] end
FORMAT["Jan"] = function(c) return MONTHS_SHORT[c.month] end
FORMAT["1"], FORMAT["01"] = put("%d", field("month")), put("%02d", field("month"))
FORMAT["Monday"] = function(c) return DAYS[c.weekday + 1] end
FORMAT["Mon"] = function(c) return DAYS_SHORT[c.weekday + 1] end
FORMAT["2"], FORMAT["_2"], FORMAT["02"] = put("%d", field("day")), put("%2d", field("day")), put("%02d", field("day"))
FORMAT["__2"], FORMAT["002"] = put("%3d", field("year_day")), put("%03d", field("year_day"))
FORMAT["15"] = put("%02d", field("hour"))
FORMAT["3"] = function(c) return sformat("%d", hour_of_12(c.hour)) end
FORMAT["03"] = function(c) return sformat("%02d", hour_of_12(c.hour)) end
FORMAT["4"], FORMAT["04"] = put("%d", field("minute")), put("%02d", field("minute"))
FORMAT["5"], FORMAT["05"] = put("%d", field("second")), put("%02d", field("second"))
FORMAT["PM"] = function(c) return c.hour >= 12 and "PM" or "AM" end
FORMAT["pm"] = function(c) return c.hour >= 12 and "pm" or "am" end

FORMAT[".0"] = function(c, element)
  local digits = sub(sformat("%09d", c.nsec), 1, element.digits)
  return sub(element.text, 1, 1) .. digits
end
FORMAT[".9"] = function(c, element)
  local digits = gsub(sub(sformat("%09d", c.nsec), 1, element.digits), "0+$", "")
  return digits == "" and "" or sub(element.text, 1, 1) .. digits
end

local function offset_text(offset, colon, with_minutes, with_seconds)
  -- The sign is that of whole minutes: an offset of -30 s prints as +00:00, as in Go.
  local sign = offset <= -60 and "-" or "+"
  local s = offset < 0 and -offset or offset
  local text = sign .. sformat("%02d", s // 3600)
  if colon then
    text = text .. ":"
  end
  if with_minutes then
    text = text .. sformat("%02d", s // 60 % 60)
  end
  if with_seconds then
    text = text .. (colon and ":" or "") .. sformat("%02d", s % 60)
  end
  return text
end

FORMAT["MST"] = function(c)
  return c.abbr ~= "" and c.abbr or offset_text(c.offset, false, true, false)
end

--- The number in two digits at a position, or nil.
local function two_digits(value, pos)
  return tonumber((match(value, "^%d%d", pos)))
end

--- A parser of numbers from min to max, written in digits_min..digits_max digits after at most `spaces` spaces.
local function number_parser(name, digits_min, digits_max, spaces, out_of_range, min, max)
  return function(value, pos, into)
    for _ = 1, spaces do
      if byte(value, pos) == 32 then
        pos = pos + 1
      end
    end
    local digits = sub(match(value, "^%d*", pos), 1, digits_max)
    if #digits < digits_min then
      return nil
    end
    local n = tonumber(digits)
    if n < min or n > max then
      return nil, out_of_range
    end
    into[name] = n
    return pos + #digits
  end
end

--- A parser of names from a list, whatever their case.
local function name_parser(name, list)
  return function(value, pos, into)
    for i = 1, #list do
      if lower(sub(value, pos, pos + #list[i] - 1)) == lower(list[i]) then
        into[name] = i
        return pos + #list[i]
      end
    end
    return nil
  end
end

PARSE["2006"] = number_parser("year", 4, 4, 0, "year", 0, 9999)
PARSE["06"] = function(value, pos, into)
  local year = two_digits(value, pos)
  if not year then
    return nil
  end
  into.year = year + (year >= 69 and 1900 or 2000)
  return pos + 2
end
PARSE["January"], PARSE["Jan"] = name_parser("month", MONTHS), name_parser("month", MONTHS_SHORT)
PARSE["1"] = number_parser("month", 1, 2, 0, "month", 1, 12)
PARSE["01"] = number_parser("month", 2, 2, 0, "month", 1, 12)
-- A weekday must be one, and is not compared with the date.
PARSE["Monday"], PARSE["Mon"] = name_parser("weekday", DAYS), name_parser("weekday", DAYS_SHORT)
PARSE["2"] = number_parser("day", 1, 2, 0, "day", 0, 99) -- checked with the month when all is read
PARSE["_2"] = number_parser("day", 1, 2, 1, "day", 0, 99)
PARSE["02"] = number_parser("day", 2, 2, 0, "day", 0, 99)
PARSE["__2"] = number_parser("year_day", 1, 3, 2, "day-of-year", 0, 999)
PARSE["002"] = number_parser("year_day", 3, 3, 0, "day-of-year", 0, 999)
PARSE["15"] = number_parser("hour", 1, 2, 0, "hour", 0, 23)
PARSE["3"] = number_parser("hour", 1, 2, 0, "hour", 0, 12)
PARSE["03"] = number_parser("hour", 2, 2, 0, "hour", 0, 12)
PARSE["4"] = number_parser("minute", 1, 2, 0, "minute", 0, 59)
PARSE["04"] = number_parser("minute", 2, 2, 0, "minute", 0, 59)

--- Store the fraction whose digits begin at a position; places beyond nanoseconds are dropped.
local function read_fraction(digits, into)
  local ns = sub(digits, 1, 9)
  into.nsec = tonumber(ns .. rep("0", 9 - #ns))
end

local function seconds_parser(digits_min)
  local number = number_parser("second", digits_min, 2, 0, "second", 0, 59)
  return function(value, pos, into, _, next)
    local after, problem = number(value, pos, into)
    if not after then
      return nil, problem
    end
    -- A fraction in the text is welcome even where the layout has none.
    local digits = match(value, "^[.,](%d+)", after)
    if digits and next.key ~= ".0" and next.key ~= ".9" then
      read_fraction(digits, into)
      after = after + 1 + #digits
    end
    return after
  end
end
PARSE["5"], PARSE["05"] = seconds_parser(1), seconds_parser(2)

PARSE[".0"] = function(value, pos, into, element)
  local digits = match(value, "^[.,](%d+)", pos)
  if not digits or #digits < element.digits then
    return nil
  end
  read_fraction(sub(digits, 1, element.digits), into)
  return pos + 1 + element.digits
end
PARSE[".9"] = function(value, pos, into)
  local digits = match(value, "^[.,](%d+)", pos)
  if not digits then
    return pos
  end
  read_fraction(digits, into)
  return pos + 1 + #digits
end

local function half_day_parser(am, pm)
  return function(value, pos, into)
    local text = sub(value, pos, pos + 1)
    if text ~= am and text ~= pm then
      return nil
    end
    into[text == pm and "pm" or "am"] = true
    return pos + 2
  end
end
PARSE["PM"], PARSE["pm"] = half_day_parser("AM", "PM"), half_day_parser("am", "pm")

--- Length of a signed hour offset of at most 23 at a position, 0 if there is none.
local function signed_hours_length(value, pos)
  local digits = match(value, "^[+-](%d+)", pos)
  return digits and tonumber(digits) <= 23 and 1 + #digits or 0
end

--- Length of something that looks like a zone abbreviation at a position, nil if nothing does.
local function abbr_length(value, pos)
  if #value - pos + 1 < 3 then
    return nil
  end
  local four = sub(value, pos, pos + 3)
  if four == "ChST" or four == "MeST" then -- the two with a small letter
    return 4
  elseif sub(four, 1, 3) == "GMT" then
    return 3 + signed_hours_length(value, pos + 3)
  elseif find(value, "^[+-]", pos) then
    local length = signed_hours_length(value, pos)
    return length > 0 and length or nil
  end
  local letters = #match(value, "^%u*", pos)
  local ends_in_t = byte(value, pos + letters - 1) == 84
  if letters == 3 or letters == 5 and ends_in_t or letters == 4 and (ends_in_t or four == "WITA") then
    return letters
  end
  return nil
end

PARSE["MST"] = function(value, pos, into)
  if sub(value, pos, pos + 2) == "UTC" then
    into.utc = true
    return pos + 3
  end
  local length = abbr_length(value, pos)
  if not length then
    return nil
  end
  into.abbr = sub(value, pos, pos + length - 1)
  return pos + length
end

for _, first in raw.ipairs({ "-", "Z" }) do
  for _, text in raw.ipairs(ELEMENTS[first]) do
    local zulu, colon = first == "Z", find(text, ":") ~= nil
    local places = #gsub(text, "%D", "")
    local with_minutes, with_seconds = places >= 4, places == 6

    FORMAT[text] = function(c)
      if zulu and c.offset == 0 then
        return "Z"
      end
      return offset_text(c.offset, colon, with_minutes, with_seconds)
    end

    PARSE[text] = function(value, pos, into)
      if zulu and byte(value, pos) == 90 then
        into.utc = true
        return pos + 1
      end
      local given = sub(value, pos, pos + #text - 1)
      if #given < #text or colon and (byte(given, 4) ~= 58 or with_seconds and byte(given, 7) ~= 58) then
        return nil
      end
      local hours = two_digits(given, 2)
      local minutes = hours and (with_minutes and two_digits(given, colon and 5 or 4) or not with_minutes and 0)
      local seconds = minutes and (with_seconds and two_digits(given, colon and 8 or 6) or not with_seconds and 0)
      -- 24 hours and 60 minutes are let through: some people write them.
      if (seconds or 0) > 60 then
        return nil, "time zone offset second"
      elseif (minutes or 0) > 60 then
        return nil, "time zone offset minute"
      elseif (hours or 0) > 24 then
        return nil, "time zone offset hour"
      end
      if not seconds or not find(given, "^[+-]") then
        return nil
      end
      local offset = hours * 3600 + minutes * 60 + seconds
      into.offset = byte(given) == 45 and -offset or offset
      return pos + #text
    end
  end
end

-- Times.

local time_methods = {}
local new_time_object

local function is_time(v) return class_of(v) == "Time" end

local function new_time(unix_s, nsec, location)
  return new_time_object({ [SEC] = unix_s, [NSEC] = nsec, [LOC] = location })
end

--- A Time from integer Unix nanoseconds, shown in a Location (default: the local one).
function K.new_time(unix_ns, location)
  return new_time(unix_ns // NS_PER_S, unix_ns % NS_PER_S, location or M.localtz)
end

--- Seconds of the wall clock a Time shows, as if that were UTC; then the zone's offset and abbreviation.
local function wall_of(t)
  local offset, abbr = zone_lookup(t[LOC][ZONE], t[SEC])
  return t[SEC] + offset, offset, abbr
end

--- All the fields of the wall clock that layouts can ask for.
local function reading_of(t)
  local wall, offset, abbr = wall_of(t)
  local days, s = wall // DAY_S, wall % DAY_S
  local year, month, day = civil_of(days)
  return {
    year = year, month = month, day = day, weekday = (days + 4) % 7, year_day = year_day_of(days, year),
    hour = s // 3600, minute = s // 60 % 60, second = s % 60, nsec = t[NSEC], offset = offset, abbr = abbr,
  }
end

local function format(t, layout)
  local c, out = reading_of(t), {}
  local compiled = compile(layout)
  for i = 1, #compiled do
    local element = compiled[i]
    out[2 * i - 1] = element.literal
    out[2 * i] = element.key and FORMAT[element.key](c, element) or ""
  end
  return concat(out)
end

new_time_object = K.class("Time", time_methods, {
  __tostring = function(t) return format(t, "2006-01-02 15:04:05.999999999 -0700 MST") end,
  __eq = function(a, b) return is_time(a) and is_time(b) and a[SEC] == b[SEC] and a[NSEC] == b[NSEC] end,
  __lt = function(a, b)
    compared(a, b, is_time, "Time")
    return a[SEC] < b[SEC] or a[SEC] == b[SEC] and a[NSEC] < b[NSEC]
  end,
  __le = function(a, b)
    compared(a, b, is_time, "Time")
    return a[SEC] < b[SEC] or a[SEC] == b[SEC] and a[NSEC] <= b[NSEC]
  end,
})

--- The instant of a date and a clock reading whose fields may be beyond their usual ranges.
local function time_of(year, month, day, hour, minute, second, nsec, location)
  year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
  local wall = days_of(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second + nsec // NS_PER_S
  return new_time(unix_of_wall(wall, location[ZONE]), nsec % NS_PER_S, location)
end

function M.now()
  return K.new_time(K.current.now)
end

function M.unix(seconds, nanoseconds)
  local s, ns = whole(seconds), whole(nanoseconds == nil and 0 or nanoseconds)
  if not s then
    wrong_type(seconds, 1, "time.unix", "integer")
  elseif not ns then
    wrong_type(nanoseconds, 2, "time.unix", "integer")
  end
  return new_time(s + ns // NS_PER_S, ns % NS_PER_S, M.localtz)
end

function M.date(year, month, day, hour, minute, second, nanosecond, location)
  local given = { year, month, day, hour, minute, second, nanosecond }
  for i = 1, 7 do
    local value = whole(given[i])
    if not value then
      wrong_type(given[i], i, "time.date", "integer")
    end
    given[i] = value
  end
  if location ~= nil and class_of(location) ~= "Location" then
    wrong_type(location, 8, "time.date", "Location")
  end
  return time_of(
    given[1], given[2], given[3], given[4], given[5], given[6], given[7], location or M.localtz
  )
end

--- The position in a value after literal text of a layout, or nil and where they part. Runs of spaces count as one.
local function skip_literal(value, pos, literal)
  local i = 1
  while i <= #literal do
    local expected, got = byte(literal, i), byte(value, pos)
    if expected == 32 then
      if got and got ~= 32 then
        return nil, pos
      end
      i, pos = match(literal, "^ *()", i), match(value, "^ *()", pos)
    elseif expected ~= got then
      return nil, pos
    else
      i, pos = i + 1, pos + 1
    end
  end
  return pos
end

--- Check and complete the date of what was read: year, month, day; or nil and what is wrong.
local function date_of(into)
  local year, month, day = into.year or 0, into.month, into.day
  if into.year_day then
    local days = days_of(year, 1, 1) + into.year_day - 1
    local year_of_day, month_of_day, day_of_month = civil_of(days)
    if year_of_day ~= year then
      return nil, "day-of-year out of range"
    elseif month and month ~= month_of_day then
      return nil, "day-of-year does not match month"
    elseif day and day ~= day_of_month then
      return nil, "day-of-year does not match day"
    end
    return year, month_of_day, day_of_month
  end
  month, day = month or 1, day or 1
  local _, month_of_day = civil_of(days_of(year, month, day))
  if month_of_day ~= month then
    return nil, "day out of range"
  end
  return year, month, day
end

--- Read a text by a layout: Time, or nil and Go's complaint. default: the zone of texts that name none; home: the one
--- whose offsets and abbreviations are tried first.
local function parse(layout, value, default, home)
  local function misfit(rest, element)
    return sformat("parsing time %s as %s: cannot parse %s as %s", quoted(value), quoted(layout),
      quoted(sub(value, rest)), quoted(element))
  end
  local function complaint(text)
    return "parsing time " .. quoted(value) .. ": " .. text
  end

  local compiled, into, pos = compile(layout), {}, 1
  for i = 1, #compiled do
    local element = compiled[i]
    local after, parted_at = skip_literal(value, pos, element.literal)
    if not after then
      return nil, misfit(parted_at, element.literal)
    end
    pos = after
    if element.key then
      local out_of_range
      after, out_of_range = PARSE[element.key](value, pos, into, element, compiled[i + 1])
      if out_of_range then
        return nil, complaint(out_of_range .. " out of range")
      elseif not after then
        return nil, misfit(pos, element.text)
      end
      pos = after
    end
  end
  if pos <= #value then
    return nil, complaint("extra text: " .. quoted(sub(value, pos)))
  end

  local year, month, day = date_of(into)
  if not year then
    return nil, complaint(month)
  end
  local hour = into.hour or 0
  if into.pm and hour < 12 then
    hour = hour + 12
  elseif into.am and hour == 12 then
    hour = 0
  end
  local minute, second, nsec = into.minute or 0, into.second or 0, into.nsec or 0
  if into.utc then
    return time_of(year, month, day, hour, minute, second, nsec, M.utc)
  elseif not into.offset and not into.abbr then
    return time_of(year, month, day, hour, minute, second, nsec, default)
  end

  local wall = days_of(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second
  if into.offset then
    local unix_s = wall - into.offset
    local offset, abbr = zone_lookup(home[ZONE], unix_s)
    if offset == into.offset and (not into.abbr or abbr == into.abbr) then
      return new_time(unix_s, nsec, home)
    end
    local name = into.abbr or ""
    return new_time(unix_s, nsec, new_location({ name = name, offset = into.offset, abbr = name }))
  end
  local offset = offset_of_abbr(home[ZONE], into.abbr, wall)
  if offset then
    return new_time(wall - offset, nsec, home)
  end
  -- An unknown abbreviation: keep it with an offset of zero, or of the hours that "GMT+3" says, so that the same
  -- layout prints the same text. As in Go the hours move the clock that is shown, not the instant.
  local hours = tointeger(tonumber(match(into.abbr, "^GMT([+-]%d+)$") or "0"))
  return new_time(wall, nsec, new_location({ name = into.abbr, offset = hours * 3600, abbr = into.abbr }))
end

function M.parse(layout, text, location)
  if raw.type(layout) ~= "string" then
    wrong_type(layout, 1, "time.parse", "string")
  elseif raw.type(text) ~= "string" then
    wrong_type(text, 2, "time.parse", "string")
  elseif location ~= nil and class_of(location) ~= "Location" then
    wrong_type(location, 3, "time.parse", "Location")
  end
  local t, problem = parse(layout, text, location or M.utc, location or M.localtz)
  if not t then
    return K.invalid(problem)
  end
  return t
end

-- Methods of Time.

--- A duration argument of a method: nanoseconds, or nil and an Error for bad text; other types raise.
local function duration_arg(value, name)
  if raw.type(value) ~= "string" and not math_type(value) and not is_duration(value) then
    raw.error(sformat("bad argument #1 to '%s' (duration expected, got %s)", name, K.type(value)), 3)
  end
  return K.duration_ns(value, name)
end

local function time_arg(value, name)
  if not is_time(value) then
    raw.error(sformat("bad argument #1 to '%s' (Time expected, got %s)", name, K.type(value)), 3)
  end
  return value
end

local function shifted(t, ns)
  local nsec = t[NSEC] + ns % NS_PER_S
  return new_time(t[SEC] + ns // NS_PER_S + nsec // NS_PER_S, nsec % NS_PER_S, t[LOC])
end

function time_methods:add(duration)
  local ns, problem = duration_arg(duration, "add")
  if not ns then
    return nil, problem
  end
  return shifted(self, ns)
end

--- The difference, kept within what a Duration can say (292 years).
function time_methods:sub(other)
  time_arg(other, "sub")
  local nsec = self[NSEC] - other[NSEC]
  local s = self[SEC] - other[SEC] + nsec // NS_PER_S
  nsec = nsec % NS_PER_S
  if s > MAX // NS_PER_S or s == MAX // NS_PER_S and nsec > MAX % NS_PER_S then
    return K.new_duration(MAX)
  elseif s < MIN // NS_PER_S or s == MIN // NS_PER_S and nsec < MIN % NS_PER_S then
    return K.new_duration(MIN)
  end
  return K.new_duration(s * NS_PER_S + nsec)
end

function time_methods:add_date(years, months, days)
  local y, m, d = whole(years), whole(months), whole(days)
  if not (y and m and d) then
    K.raise("bad argument to 'add_date' (three integers expected)")
  end
  local c = reading_of(self)
  return time_of(c.year + y, c.month + m, c.day + d, c.hour, c.minute, c.second, c.nsec, self[LOC])
end

function time_methods:after(other)
  return time_arg(other, "after") < self
end

function time_methods:before(other)
  return self < time_arg(other, "before")
end

function time_methods:equal(other)
  return self == time_arg(other, "equal")
end

function time_methods:format(layout)
  if raw.type(layout) ~= "string" then
    wrong_type(layout, 1, "format", "string")
  end
  return format(self, layout)
end

function time_methods:format_rfc3339() return format(self, M.RFC3339) end
function time_methods:unix() return self[SEC] end
function time_methods:unix_nano() return self[SEC] * NS_PER_S + self[NSEC] end

function time_methods:date()
  return civil_of(wall_of(self) // DAY_S)
end

function time_methods:clock()
  local s = wall_of(self) % DAY_S
  return s // 3600, s // 60 % 60, s % 60
end

function time_methods:year() return (civil_of(wall_of(self) // DAY_S)) end

function time_methods:month()
  local _, month = civil_of(wall_of(self) // DAY_S)
  return month
end

function time_methods:day()
  local _, _, day = civil_of(wall_of(self) // DAY_S)
  return day
end

function time_methods:hour() return wall_of(self) % DAY_S // 3600 end
function time_methods:minute() return wall_of(self) // 60 % 60 end
function time_methods:second() return wall_of(self) % 60 end
function time_methods:nanosecond() return self[NSEC] end
function time_methods:weekday() return (wall_of(self) // DAY_S + 4) % 7 end

function time_methods:year_day()
  local days = wall_of(self) // DAY_S
  return year_day_of(days, (civil_of(days)))
end

function time_methods:is_zero() return self[SEC] == YEAR_1_S and self[NSEC] == 0 end
function time_methods:location() return self[LOC] end
function time_methods:utc() return new_time(self[SEC], self[NSEC], M.utc) end
function time_methods:in_local() return new_time(self[SEC], self[NSEC], M.localtz) end

function time_methods:in_location(location)
  if class_of(location) ~= "Location" then
    wrong_type(location, 1, "in_location", "Location")
  end
  return new_time(self[SEC], self[NSEC], location)
end

--- Nanoseconds since the zero time modulo d. They do not fit into an integer, so they are added up bit by bit.
local function beyond_multiple(t, d)
  local function sum(a, b) -- of two residues; a + b itself might overflow
    return a >= d - b and a - (d - b) or a + b
  end
  local s, result = (t[SEC] - YEAR_1_S) % d, t[NSEC] % d
  local factor = NS_PER_S
  while factor > 0 do
    if factor & 1 == 1 then
      result = sum(result, s)
    end
    s, factor = sum(s, s), factor >> 1
  end
  return result
end

function time_methods:truncate(duration)
  local d, problem = duration_arg(duration, "truncate")
  if not d then
    return nil, problem
  elseif d <= 0 then
    return self
  end
  return shifted(self, -beyond_multiple(self, d))
end

function time_methods:round(duration)
  local d, problem = duration_arg(duration, "round")
  if not d then
    return nil, problem
  elseif d <= 0 then
    return self
  end
  local beyond = beyond_multiple(self, d)
  if beyond < d - beyond then
    return shifted(self, -beyond)
  end
  return shifted(self, d - beyond)
end

K.modules = K.modules or {}
K.modules.time = M
