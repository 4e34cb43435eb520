-- What user code sees of a value in place of its address: its ordinal (`K.ordinal`) and its text (`K.tostring`).
--
-- Reads K.current; written into the unit: ordinals, next_ordinal.

local K = ...
local raw = K.raw

local raw_type, raw_rawget, raw_tostring, raw_error = raw.type, raw.rawget, raw.tostring, raw.error
local raw_setmetatable, metatable_of = raw.setmetatable, raw.debug.getmetatable
local raw_format = raw.string.format
local class_of, SEQ = K.class_of, K.SEQ

local NAME_BYTES_MAX <const> = 200
local weak_keys = { __mode = "k" }
local nobody = {} -- ordinals asked for while no unit runs

--- The number of a table, function or thread in its unit, given on first use: what user code sees in place of an
--- address. Entries vanish only together with their values, so the collector's timing is invisible.
local function ordinal(v)
  local unit = K.current or nobody
  local ordinals = unit.ordinals
  if not ordinals then
    ordinals = raw_setmetatable({}, weak_keys)
    unit.ordinals, unit.next_ordinal = ordinals, 1
  end
  local n = ordinals[v]
  if not n then
    n = unit.next_ordinal
    ordinals[v], unit.next_ordinal = n, n + 1
  end
  return n
end
K.ordinal = ordinal

--- The ordinals given so far in the running unit, value -> number; nil when there are none.
function K.ordinals()
  return (K.current or nobody).ordinals
end

--- `tostring` without addresses.
function K.tostring(v)
  local kind = raw_type(v)
  if kind == "string" then
    return v
  elseif kind == "number" then
    if v ~= v then
      return "nan" -- C writes "nan" or "-nan", which differs between processors
    end
    return raw_tostring(v)
  end
  local mt = metatable_of(v)
  if mt then
    local f = raw_rawget(mt, "__tostring")
    if f then
      local text = f(v)
      if raw_type(text) ~= "string" then
        raw_error("'__tostring' must return a string")
      end
      return text
    end
    local name = raw_rawget(mt, "__name")
    if raw_type(name) == "string" and #name <= NAME_BYTES_MAX then
      kind = name
    end
  end
  if kind == "nil" or kind == "boolean" then
    return raw_tostring(v)
  end
  return raw_format("%s: 0x%08x", kind, class_of(v) and raw_rawget(v, SEQ) or ordinal(v))
end
