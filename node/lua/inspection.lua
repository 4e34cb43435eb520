-- Looking at a unit from outside: where each of its tasks stands, what it waits for, and what its variables hold
-- (`K.inspect`).
--
-- Invariants:
--   * A look changes nothing that the unit could notice: no metamethod of its code runs, no table of it is written, no
--     ordinal is given away, nothing is charged to its budget. A unit that was looked at replays like one that was not.
--   * What comes out is bounded, whatever the unit holds, and has no address in it.
--
-- Not responsible for: what an op is about (the driver knows; here it is a number).

local K = ...
local raw = K.raw

local raw_type, raw_next, raw_rawget, raw_tostring = raw.type, raw.next, raw.rawget, raw.tostring
local metatable_of, math_type, class_of = raw.debug.getmetatable, raw.math.type, K.class_of
local getinfo, getlocal, getupvalue = raw.debug.getinfo, raw.debug.getlocal, raw.debug.getupvalue
local byte, sub, format, gsub, match = raw.string.byte, raw.string.sub, raw.string.format, raw.string.gsub, raw.string.match
local concat, sort, utf8_len = raw.table.concat, raw.table.sort, raw.utf8.len

-- Limits of one look. A value is cut where it passes one of them, and "..." stands there.
local TASKS_MAX, COROUTINES_MAX = 100, 50
local FRAMES_MAX, LEVELS_MAX = 30, 200 -- each look at a level walks there from the top
local VARIABLES_MAX = 60 -- of one frame
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

-- look: of one inspection: tasks (coroutine -> task), found (coroutines of the user's, in order), looks and bytes
-- left. path: the tables that the shown one is in.
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

-- Frames -----------------------------------------------------------------------------------------------------

-- The variables of a frame by `each(name, value)`: what is in force there, not what an inner one of that name hides.
local function locals_of(co, level, each)
  local names, values, at, n = {}, {}, {}, 0
  for i = 1, 250 do
    local name, value = getlocal(co, level, i)
    if name == nil then
      break
    elseif byte(name, 1) ~= 40 then -- "(": what the interpreter keeps there
      if at[name] then
        names[at[name]] = false
      end
      n = n + 1
      names[n], values[n], at[name] = name, value, n
    end
  end
  for i = 1, n do
    if names[i] then
      each(names[i], values[i])
    end
  end
end

-- Upvalues without functions and modules: a file's top is full of them, and they are the code, not its state.
local function upvalues_of(f, each)
  for i = 1, 250 do
    local name, value = getupvalue(f, i)
    if name == nil then
      break
    end
    local kind = raw_type(value)
    local is_code = kind == "table" and K.view_name(value) or kind == "function" and not generator_of(value, getinfo(value, "S"))
    if not is_code and name ~= "_ENV" and name ~= K.limits.join_name then
      each(name, value)
    end
  end
end

local function list_of(look, walk)
  local list = {}
  walk(function(name, value)
    if #list < VARIABLES_MAX then
      list[#list + 1] = { name, variable(look, value) }
    elseif #list == VARIABLES_MAX then
      list[#list + 1] = { MORE, MORE }
    end
  end)
  return list
end

local function variadic(look, co, level)
  local parts = {}
  for i = 1, ITEMS_MAX do
    local name, value = getlocal(co, level, -i)
    if name == nil then
      break
    end
    parts[i] = variable(look, value)
  end
  return parts[1] and concat(parts, ", ")
end

local function function_name(info, is_outermost, is_main)
  if is_outermost and is_main then
    return "main function"
  elseif info.name and not is_outermost then
    return info.name
  end
  return "function at line " .. raw_tostring(info.linedefined)
end

-- The user's frames of a coroutine and of those that wait inside it, innermost first. each(co, level, info)
local function walk_frames(co, each)
  local inner = K.waiting_inside(co)
  if inner then
    walk_frames(inner, each)
  end
  for level = 0, LEVELS_MAX do
    local info = getinfo(co, level, "Slnf")
    if info == nil then
      return
    elseif is_users(info) and each(co, level, info) then
      return
    end
  end
end

local function frames_of(look, co, is_main, with_values)
  local frames = {}
  local last
  walk_frames(co, function(where, level, info)
    if #frames >= FRAMES_MAX then
      frames[FRAMES_MAX + 1] = { file = MORE, line = 0, ["function"] = MORE, locals = {}, upvalues = {} }
      last = nil
      return true
    end
    local frame = { file = sub(info.source, 2), line = info.currentline, ["function"] = function_name(info, false) }
    if with_values then
      frame.locals = list_of(look, function(each) locals_of(where, level, each) end)
      local rest = variadic(look, where, level)
      if rest then
        frame.locals[#frame.locals + 1] = { MORE, rest }
      end
      frame.upvalues = list_of(look, function(each) upvalues_of(info.func, each) end)
    end
    frames[#frames + 1] = frame
    last = info
    return false
  end)
  if last then
    frames[#frames]["function"] = function_name(last, true, is_main) -- nobody of the user's has called it
  end
  return frames
end

-- Waiting ----------------------------------------------------------------------------------------------------

-- What of the runtime's a channel is: the name of what it was got by, and the op that fills it.
local function known_channels(unit)
  local known = {}
  local function know(ch, name, n)
    if ch ~= nil and known[ch] == nil then
      known[ch] = { name = name, op = n }
    end
  end
  if unit.inbox then
    know(unit.inbox, "process.inbox()")
  end
  if unit.events then
    know(unit.events, "process.events()")
  end
  for topic, listener in raw_next, unit.listeners or {} do
    know(listener.channel, "process.listen(" .. shown_text(topic) .. ")")
    know(listener.target, "subscribe(" .. shown_text(topic) .. ")")
  end
  for n, on_outcome in raw_next, unit.pending or {} do
    for i = 1, 10 do
      local name, value = getupvalue(on_outcome, i)
      if name == nil then
        break
      end
      local class = class_of(value)
      if class == "channel" then
        know(value, nil, n)
      elseif class == "Future" or class == "Timer" or class == "Ticker" then
        know((K.channel_of(value)), nil, n)
      end
    end
  end
  return known
end

local HOLDERS = { Future = true, Timer = true, Ticker = true }

local function leads_to(value, ch)
  local class = class_of(value)
  return class ~= nil and (value == ch or HOLDERS[class] and K.channel_of(value) == ch)
end

-- The variable that holds a channel, seen from where a coroutine waits.
local function name_of(co, ch)
  local found
  local function look_at(name, value)
    if found then
      return
    elseif leads_to(value, ch) then
      found = name
    elseif raw_type(value) == "table" and not class_of(value) and not K.view_name(value) then
      local looked = 0
      for key, inner in raw_next, value do
        looked = looked + 1
        if looked > ITEMS_MAX then
          break
        elseif raw_type(key) == "string" and #key <= 60 and match(key, "^[%a_][%w_]*$") and leads_to(inner, ch) then
          found = name .. "." .. key
        end
      end
    end
  end
  walk_frames(co, function(where, level, info)
    locals_of(where, level, look_at)
    upvalues_of(info.func, look_at)
    return found
  end)
  return found
end

local function channel_record(look, co, ch)
  local held, size, closed = K.channel_facts(ch)
  local known = look.channels[ch] or {}
  return {
    name = known.name or name_of(co, ch), op = known.op, held = held, size = size ~= raw.math.huge and size or nil,
    closed = closed,
  }
end

local function awaited_ops(unit)
  local ops = {}
  for n, on_outcome in raw_next, unit.pending or {} do
    for i = 1, 10 do
      local name, value = getupvalue(on_outcome, i)
      if name == nil then
        break
      elseif name == "task" then
        ops[value] = n
      end
    end
  end
  return ops
end

local function children_waited_for(unit)
  local children = {}
  for n, task in raw_next, unit.execs or {} do
    children[task] = n
  end
  return children
end

-- What a task waits for: {kind, ...}.
local function waits_for(look, task)
  local on = task.on
  if on == nil then
    local child = look.children[task]
    if child then
      return { kind = "child", op = child }
    end
    return { kind = look.ops[task] and "op" or "nothing", op = look.ops[task] }
  elseif class_of(on) == "Future" then
    local _, n = K.channel_of(on)
    return { kind = "cancel", op = n }
  end
  local cases = {}
  for i, case in raw.ipairs(K.waited_for(on)) do
    if i > ITEMS_MAX then
      break
    end
    cases[i] = channel_record(look, task.co, case[1])
    cases[i].verb = case[2]
    if case[2] == "send" then
      cases[i].value = variable(look, case[3])
    end
  end
  if on.cases then
    return { kind = "select", cases = cases }
  end
  return { kind = cases[1].verb, cases = cases }
end

-- A task of the kernel's own, that hands on what arrives for `subscribe(topic, ch)`.
local function is_kernels(task)
  local has_frames = false
  walk_frames(task.co, function()
    has_frames = true
    return true
  end)
  return not has_frames and not task.main
end

--- What a unit is doing: its tasks, the suspended coroutines that its code has made itself, and its globals. with_values:
--- with what variables hold.
function K.inspect(unit, with_values)
  local look = {
    tasks = {}, found = {}, looks = LOOKS_MAX, value_bytes = VALUE_BYTES_MAX, total_bytes = TOTAL_BYTES_MAX,
    path = {}, channels = known_channels(unit), ops = awaited_ops(unit), children = children_waited_for(unit),
  }
  local known = {}
  function look.find(co)
    if not known[co] and K.may_resume(co) then
      known[co] = true
      look.found[#look.found + 1] = co
    end
  end
  local ids = {}
  for id, task in raw_next, unit.tasks or {} do
    ids[#ids + 1] = id
    look.tasks[task.co] = task
  end
  sort(ids)
  local tasks = {}
  for i, id in raw.ipairs(ids) do
    if i > TASKS_MAX then
      break
    end
    local task = unit.tasks[id]
    tasks[i] = {
      id = id, main = task.main == true, waits = waits_for(look, task),
      runtimes = is_kernels(task), frames = frames_of(look, task.co, task.main, with_values),
    }
  end
  local globals = {}
  if with_values then
    local names = other_entries(look, unit.env, 0)
    globals = list_of(look, function(each)
      for _, entry in raw.ipairs(names) do
        local name, value = entry.key, raw_rawget(unit.env, entry.key)
        local kind = raw_type(value)
        local is_code = kind == "function" or kind == "table" and (K.view_name(value) or unit.imports[name] == value)
        if raw_type(name) == "string" and not is_code and name ~= "package" then
          each(name, value)
        end
      end
    end)
  end
  local coroutines, i = {}, 1
  while look.found[i] and i <= COROUTINES_MAX do -- their variables may lead to further ones
    coroutines[i] = { frames = frames_of(look, look.found[i], false, with_values) }
    i = i + 1
  end
  return { tasks = tasks, tasks_total = #ids, coroutines = coroutines, globals = globals }
end
