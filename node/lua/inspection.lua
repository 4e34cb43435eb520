-- Looking at a unit from outside: where each of its tasks stands, what it waits for, and what its variables hold
-- (`K.inspect`).
--
-- Invariants:
--   * A look changes nothing that the unit could notice: no metamethod of its code runs, no table of it is written, no
--     ordinal is given away, nothing is charged to its budget. A unit that was looked at replays like one that was not.
--   * What comes out is bounded, whatever the unit holds, and has no address in it.
--
-- Not responsible for: how a value is shown (showing.lua), what an op is about (the driver knows; here it is a number).

local K = ...
local raw = K.raw

local raw_type, raw_next, raw_rawget, raw_tostring = raw.type, raw.next, raw.rawget, raw.tostring
local class_of, getinfo, getlocal, getupvalue = K.class_of, raw.debug.getinfo, raw.debug.getlocal, raw.debug.getupvalue
local byte, sub, match, concat, sort = raw.string.byte, raw.string.sub, raw.string.match, raw.table.concat, raw.table.sort
local MORE, LEVELS_MAX, ITEMS_MAX = K.showing.MORE, K.showing.LEVELS_MAX, K.showing.ITEMS_MAX
local new_look, variable, shown_text = K.showing.new_look, K.showing.variable, K.showing.text
local entries_of, is_users, generator_of = K.showing.entries, K.showing.is_users, K.showing.generator_of

-- Limits of one look. It is cut where it passes one of them, and "..." stands there.
local TASKS_MAX, COROUTINES_MAX = 100, 50
local FRAMES_MAX = 30
local VARIABLES_MAX = 60 -- of one frame

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
  local look = new_look()
  look.found, look.channels = {}, known_channels(unit)
  look.ops, look.children = awaited_ops(unit), children_waited_for(unit)
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
    local names = entries_of(look, unit.env, 0)
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
