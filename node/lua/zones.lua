-- Time zones and Locations (contract section 12.1).
--
-- A zone is {name, offset, abbr} with a fixed offset, or {name, days} whose offsets come from the host:
-- `K.host.zone(name, unix_s) -> offset_s, abbreviation | nil`. A Location is what user code holds of it.
-- The local zone of every unit is UTC, whatever the machine's zone is: two nodes must show the same wall clock.
-- The cache holds pure facts (offsets of a zone on a day) and never objects, so one unit cannot see through an
-- object's identity or sequence number what another one did.
--
-- `K.zones` is for time.lua: lookup, unix_of_wall, offset_of_abbr, new_location; ZONE is the key of a Location's zone.

local K = ...
local raw = K.raw
local class_of, days_of = K.class_of, K.calendar.days_of
local whole, wrong_type = K.arguments.whole, K.arguments.wrong_type
local M = K.modules.time

local DAY_S <const> = 86400
local YEAR_1_S <const> = -62135596800 -- 0001-01-01 00:00:00 UTC, Go's zero time
local ZONE_DAYS_MAX <const> = 4096 -- cached days of all zones of a VM

local ZONE = K.key("zone")

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

K.zones = {
  ZONE = ZONE, lookup = zone_lookup, unix_of_wall = unix_of_wall, offset_of_abbr = offset_of_abbr,
  new_location = new_location,
}
