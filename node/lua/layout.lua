-- Go's time layouts (contract section 12.1): `K.layouts`, for time.lua.
--
-- A layout is literal text with reference-time elements in it; it is compiled to a list of
-- {literal before, key, text, digits} whose last item has no key. `FORMAT` and `PARSE` know what each element writes
-- and reads; a clock reading is a plain table of numbers here. Pure: no zones, no Time.
-- Compiled layouts are kept; they are facts, the same for all units.

local K = ...
local raw = K.raw
local byte, find, gsub, lower = raw.string.byte, raw.string.find, raw.string.gsub, raw.string.lower
local match, rep, sformat, sub = raw.string.match, raw.string.rep, raw.string.format, raw.string.sub
local tonumber = raw.tonumber
local MONTHS, MONTHS_SHORT = K.calendar.MONTHS, K.calendar.MONTHS_SHORT
local DAYS, DAYS_SHORT = K.calendar.DAYS, K.calendar.DAYS_SHORT

local LAYOUTS_MAX <const> = 64 -- compiled layouts kept per VM; programs use a handful
local LAYOUT_BYTES_MAX <const> = 256 -- longer ones are compiled each time, so that no unit can fill the VM with them

K.layouts = {}

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

--- A layout as the list described above.
function K.layouts.compile(layout)
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
K.layouts.FORMAT, K.layouts.PARSE = FORMAT, PARSE

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
