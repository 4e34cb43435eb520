-- Values as texts, for those who look at a unit from outside (inspection.lua): `K.showing`.
--
-- Invariants:
--   * Showing a value changes nothing that the unit could notice: no metamethod of its code runs, no table of it is
--     written, no ordinal is given away, nothing is charged to its budget.
--   * A text is bounded, whatever the value holds, and has no address in it.
--
-- A look (`new_look`), which the functions are given, is of one inspection: tasks (coroutine -> task), looks (table
-- entries left to look at), value_bytes and total_bytes (of texts left), path (the tables that the shown one is in), and,
-- from whoever looks, find (takes note of a coroutine of the user's).

local K = ...
local raw = K.raw

local raw_type, raw_next, raw_rawget, raw_tostring = raw.type, raw.next, raw.rawget, raw.tostring
local metatable_of, math_type, class_of = raw.debug.getmetatable, raw.math.type, K.class_of
local getinfo, getupvalue = raw.debug.getinfo, raw.debug.getupvalue
local byte, sub, format, gsub, match = raw.string.byte, raw.string.sub, raw.string.format, raw.string.gsub, raw.string.match
local concat, sort, utf8_len = raw.table.concat, raw.table.sort, raw.utf8.len

-- Limits. A value is cut where it passes one of them, and "..." stands there.
local LEVELS_MAX = 200 -- each look at a level of a stack walks there from the top
local DEPTH_MAX, ITEMS_MAX = 5, 25 -- tables in tables; entries shown of one table
local TEXT_BYTES_MAX, VALUE_BYTES_MAX = 300, 1500
local KEYS_LOOKED_AT_MAX = 1000 -- of one table, to show the least ones
local LOOKS_MAX = 50000 -- table entries of the whole unit: some 40 ms at worst
local TOTAL_BYTES_MAX = 400000

local MORE = "..."

-- Texts ------------------------------------------------------------------------------------------------------

local ESCAPES = { ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ['"'] = '\\"', ["\\"] = "\\\\" }

local function escaped(c)
  return ESCAPES[c] or format("\\x%02x", byte(c))
end

local function shown_text(text)
  local size, cut = #text, text
  if size > TEXT_BYTES_MAX then
    cut = sub(text, 1, TEXT_BYTES_MAX)
    local _, wrong = utf8_len(cut)
    if wrong and wrong > TEXT_BYTES_MAX - 3 then -- in the middle of a character
      cut = sub(cut, 1, wrong - 1)
    end
  end
  local odd = utf8_len(cut) and '[%c"\\]' or '[%c"\\\x80-\xff]'
  local quoted = '"' .. gsub(cut, odd, escaped) .. '"'
  if size > TEXT_BYTES_MAX then
    return quoted .. MORE .. " (" .. raw_tostring(size) .. " bytes)"
  end
  return quoted
end

local function place(info)
  return info.currentline > 0 and sub(info.source, 2) .. ":" .. raw_tostring(info.currentline)
end

local function is_users(info)
  return byte(info.source, 1) == 64 -- "@"
end

-- Where the user's code stands in a coroutine, or in the one that waits inside it; nil when it has not begun.
local function place_of(co)
  local inner = K.waiting_inside(co)
  if inner then
    return place_of(inner)
  end
  for level = 0, LEVELS_MAX do
    local info = getinfo(co, level, "Sl")
    if info == nil then
      return nil
    elseif is_users(info) then
      return place(info)
    end
  end
  return nil
end

-- The coroutine behind a function made by `coroutine.wrap`.
local function generator_of(f, info)
  if info.source == "=[coroutine]" then
    for i = 1, 10 do
      local name, value = getupvalue(f, i)
      if name == "co" then
        return raw_type(value) == "thread" and value or nil
      elseif name == nil then
        return nil
      end
    end
  end
  return nil
end

-- Values -----------------------------------------------------------------------------------------------------

local shown

local function shown_thread(look, co)
  local task = look.tasks[co]
  if task then
    return task.main and "main task" or "task " .. raw_tostring(task.id)
  end
  local status = raw.coroutine.status(co)
  if status == "dead" then
    return "coroutine, ended"
  end
  look.find(co)
  local at = place_of(co)
  return "coroutine, " .. (at and "suspended at " .. at or "not begun")
end

local function shown_function(look, f)
  local info = getinfo(f, "S")
  if is_users(info) then
    return "function (" .. sub(info.source, 2) .. ":" .. raw_tostring(info.linedefined) .. ")"
  end
  local co = generator_of(f, info)
  return co and "generator: " .. shown_thread(look, co) or "function of the library"
end

local function shown_key(look, key)
  if raw_type(key) == "string" and #key <= TEXT_BYTES_MAX and match(key, "^[%a_][%w_]*$") then
    look.value_bytes = look.value_bytes - #key
    return key
  end
  return "[" .. shown(look, key, DEPTH_MAX) .. "]"
end

local RANKS = { number = 1, string = 2 }

local function before(x, y)
  if x.rank ~= y.rank then
    return x.rank < y.rank
  end
  return x.by < y.by
end

-- The entries of a table that are not in its list, least keys first, and how many there are besides; nil: nobody counted.
local function other_entries(look, t, length)
  local entries, n, looked = {}, 0, 0
  local left = look.value_bytes -- what is only put in order is not shown
  for key in raw_next, t do
    looked = looked + 1
    look.looks = look.looks - 1
    if look.looks < 0 or looked > KEYS_LOOKED_AT_MAX then
      looked = nil
      break
    end
    if not (math_type(key) == "integer" and key >= 1 and key <= length) then
      n = n + 1
      local rank = RANKS[raw_type(key)]
      entries[n] = { rank = rank or 3, key = key, by = rank and key or shown(look, key, DEPTH_MAX) }
    end
  end
  look.value_bytes = left
  sort(entries, before)
  return entries, n, looked ~= nil
end

local function shown_table(look, t, depth)
  local view = K.view_name(t)
  if view then
    return view == "_G" and "_G" or "module " .. view
  end
  local mt = metatable_of(t)
  local name = mt and raw_rawget(mt, "__name")
  name = raw_type(name) == "string" and #name <= 60 and match(name, "^[%a_][%w_.]*$") or ""
  if look.path[t] then
    return name .. "{the table it is in}"
  elseif raw_next(t) == nil then
    return name .. "{}"
  elseif depth >= DEPTH_MAX then
    return name .. "{" .. MORE .. "}"
  end
  look.path[t] = true
  local parts, n, length, cut = {}, 0, 0, false
  while n < ITEMS_MAX and look.value_bytes > 0 do
    local value = raw_rawget(t, length + 1)
    if value == nil then
      break
    end
    length = length + 1
    n = n + 1
    look.looks = look.looks - 1
    parts[n] = shown(look, value, depth + 1)
  end
  local list_goes_on = raw_rawget(t, length + 1) ~= nil
  local entries, others, counted = other_entries(look, t, list_goes_on and raw.rawlen(t) or length)
  for i = 1, others do
    if n >= ITEMS_MAX or look.value_bytes <= 0 then
      others = others - i + 1
      cut = true
      break
    end
    local key = entries[i].key
    n = n + 1
    parts[n] = shown_key(look, key) .. " = " .. shown(look, raw_rawget(t, key), depth + 1)
  end
  local more = (list_goes_on and raw.rawlen(t) - length or 0) + (cut and others or 0)
  if more > 0 or not counted then
    parts[n + 1] = MORE .. ((counted or list_goes_on) and " " .. raw_tostring(more) .. " more" or " many more")
  end
  look.path[t] = nil
  return name .. "{" .. concat(parts, ", ") .. "}"
end

-- How objects are shown: by class. Their own `__tostring` is the kernel's and safe, but mostly says little.
local objects = {}

local function channel_text(ch)
  local held, size, closed = K.channel_facts(ch)
  local room = size == raw.math.huge and "" or " of " .. raw_tostring(size)
  local text = "channel, " .. (closed and "closed, " or "")
  return text .. (size == 0 and "unbuffered" or raw_tostring(held) .. room .. " in its buffer")
end

function objects.channel(_, ch)
  return channel_text(ch)
end

function objects.Future(look, future, depth)
  local done, result, failed = K.future_facts(future)
  local _, n = K.channel_of(future)
  local which = n and "future of op " .. raw_tostring(n) or "future"
  if not done then
    return which .. ", open"
  end
  return which .. ", ended: " .. shown(look, failed or result, depth)
end

local function shown_timer(what)
  return function(_, timer)
    local _, n = K.channel_of(timer)
    return what .. (n and ", op " .. raw_tostring(n) or ", stopped")
  end
end

objects.Timer, objects.Ticker = shown_timer("timer"), shown_timer("ticker")

function objects.Payload(look, payload, depth)
  return "payload " .. shown(look, K.payload_value(payload), depth)
end

function objects.Message(look, message, depth)
  local topic, from, n, bodies = K.message_parts(message)
  local parts = {}
  for i = 1, raw.math.min(n, ITEMS_MAX) do
    parts[i] = shown(look, bodies[i], depth + 1)
  end
  local sender = raw_type(from) == "string" and from ~= "" and " from " .. shown_text(from) or ""
  return "message " .. shown(look, topic, depth) .. " (" .. concat(parts, ", ") .. ")" .. sender
end

function objects.Error(look, err, depth)
  local wire = K.error_to_wire(err)
  local kind = raw_type(wire.kind) == "string" and wire.kind ~= "" and wire.kind .. " " or ""
  local text = "error " .. sub(kind, 1, TEXT_BYTES_MAX) .. shown(look, wire.message, depth)
  return wire.details and text .. " " .. shown(look, wire.details, depth + 1) or text
end

objects["channel.case"] = function()
  return "case of a select"
end

local function shown_object(look, object, class, depth)
  local show = objects[class]
  if show then
    return show(look, object, depth)
  end
  local f = raw_rawget(metatable_of(object), "__tostring")
  local ok, text = raw.pcall(f or class_of, object)
  if not ok or raw_type(text) ~= "string" then
    return class
  end
  return f and #text <= TEXT_BYTES_MAX and class .. " " .. gsub(text, "%c", escaped) or class
end

--- A value as a text.
function shown(look, value, depth)
  local kind, text = raw_type(value), nil
  if kind == "string" then
    text = shown_text(value)
  elseif kind == "nil" or kind == "boolean" or kind == "number" then
    text = value ~= value and "nan" or raw_tostring(value)
  elseif look.looks <= 0 or look.value_bytes <= 0 then
    text = MORE
  elseif kind == "table" then
    local left, class = look.value_bytes, class_of(value)
    text = class and shown_object(look, value, class, depth) or shown_table(look, value, depth)
    look.value_bytes = raw.math.min(look.value_bytes, left - #text) -- its parts are counted, what joins them is not
    return text
  elseif kind == "function" then
    text = shown_function(look, value)
  elseif kind == "thread" then
    text = shown_thread(look, value)
  else
    text = kind
  end
  look.value_bytes = look.value_bytes - #text
  return text
end

local function variable(look, value)
  if look.total_bytes <= 0 then
    return MORE
  end
  look.value_bytes, look.path = VALUE_BYTES_MAX, {}
  local text = shown(look, value, 0)
  look.total_bytes = look.total_bytes - #text
  return text
end

local function new_look()
  return { tasks = {}, looks = LOOKS_MAX, value_bytes = VALUE_BYTES_MAX, total_bytes = TOTAL_BYTES_MAX, path = {} }
end

K.showing = {
  MORE = MORE, LEVELS_MAX = LEVELS_MAX, ITEMS_MAX = ITEMS_MAX,
  new_look = new_look, variable = variable, text = shown_text, entries = other_entries,
  is_users = is_users, generator_of = generator_of,
}
