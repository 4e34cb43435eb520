-- The calendar: `K.calendar`, what dates are, for `os.date` and the `time` module.
--
-- It is the proleptic Gregorian one, with years counted from March so that a leap day ends its year. Pure: no zones,
-- no clock. Days are counted from 1970-01-01.

local K = ...
local raw = K.raw

local MONTHS = {
  "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
  "December",
}
local DAYS = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" }
local MONTHS_SHORT, DAYS_SHORT = {}, {}
for i = 1, #MONTHS do
  MONTHS_SHORT[i] = raw.string.sub(MONTHS[i], 1, 3)
end
for i = 1, #DAYS do
  DAYS_SHORT[i] = raw.string.sub(DAYS[i], 1, 3)
end

local M = { MONTHS = MONTHS, MONTHS_SHORT = MONTHS_SHORT, DAYS = DAYS, DAYS_SHORT = DAYS_SHORT }
K.calendar = M

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

--- The day of its year, from 1, that a number of days since 1970-01-01 is.
local function year_day_of(days, year)
  return days - days_of(year, 1, 1) + 1
end

M.days_of, M.civil_of, M.year_day_of = days_of, civil_of, year_day_of
