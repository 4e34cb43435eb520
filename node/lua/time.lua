-- Times (contract section 12.1): the Time of the `time` module, its layouts and calendar arithmetic.
--
-- Responsible for: everything of `time` about instants that does not wait, and `K.new_time`.
-- Not responsible for: `sleep`, `after`, `timer`, `ticker`; Duration (duration.lua), Location (zones.lua), what the
-- elements of a layout mean (layout.lua).
--
-- A Time is a pair (Unix seconds, nanoseconds 0..999999999) and the Location it is shown in, so the zero time of year 1
-- and years beyond 9999 work although they do not fit into 64 bits of nanoseconds.

local K = ...
local raw = K.raw
local byte, match, sformat, sub, concat = raw.string.byte, raw.string.match, raw.string.format, raw.string.sub,
  raw.table.concat
local math_type, tointeger = raw.math.type, raw.math.tointeger
local MIN, MAX = raw.math.mininteger, raw.math.maxinteger
local class_of, tonumber = K.class_of, raw.tonumber
local whole, wrong_type, quoted, compared = K.arguments.whole, K.arguments.wrong_type, K.arguments.quoted,
  K.arguments.compared
local calendar, compile, FORMAT, PARSE = K.calendar, K.layouts.compile, K.layouts.FORMAT, K.layouts.PARSE
local days_of, civil_of, year_day_of = calendar.days_of, calendar.civil_of, calendar.year_day_of
local zone_lookup, unix_of_wall, offset_of_abbr = K.zones.lookup, K.zones.unix_of_wall, K.zones.offset_of_abbr
local new_location, ZONE = K.zones.new_location, K.zones.ZONE
local M = K.modules.time

local NS_PER_S <const> = 1000000000
local DAY_S <const> = 86400
local YEAR_1_S <const> = -62135596800 -- 0001-01-01 00:00:00 UTC, Go's zero time

local SEC, NSEC, LOC = K.key("sec"), K.key("nsec"), K.key("location")

for name, layout in raw.pairs({
  RFC3339 = "2006-01-02T15:04:05Z07:00", RFC3339NANO = "2006-01-02T15:04:05.999999999Z07:00",
  RFC822 = "02 Jan 06 15:04 MST", RFC822Z = "02 Jan 06 15:04 -0700", RFC850 = "Monday, 02-Jan-06 15:04:05 MST",
  RFC1123 = "Mon, 02 Jan 2006 15:04:05 MST", RFC1123Z = "Mon, 02 Jan 2006 15:04:05 -0700", KITCHEN = "3:04PM",
  STAMP = "Jan _2 15:04:05", STAMP_MILLI = "Jan _2 15:04:05.000", STAMP_MICRO = "Jan _2 15:04:05.000000",
  STAMP_NANO = "Jan _2 15:04:05.000000000", DATE_TIME = "2006-01-02 15:04:05", DATE_ONLY = "2006-01-02",
  TIME_ONLY = "15:04:05",
}) do
  M[name] = layout
end
for i = 1, #calendar.MONTHS do
  M[raw.string.upper(calendar.MONTHS[i])] = i
end
for i = 1, #calendar.DAYS do
  M[raw.string.upper(calendar.DAYS[i])] = i - 1
end

local time_methods = {}
local new_time_object

local function is_time(v) return class_of(v) == "Time" end
local function is_duration(v) return class_of(v) == "Duration" end

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
  return K.new_time(K.now())
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
