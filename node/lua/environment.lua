-- The environment (_ENV) of a unit: `K.make_env`, `K.enter`, `K.leave`, and the read-only modules (`K.module`).
--
-- This and the files before it are what a unit sees of the standard library. Not responsible for: what is in it; other
-- files add themselves to `K.modules`, `K.globals`, `K.libs`, before this one or after it. A library table of its own
-- (`K.libs.x = {}`) has to be there before.
--
-- Invariants:
--   * Nothing a unit can do changes what another unit sees. A unit only ever holds its own tables, shared functions,
--     and views (views.lua).
--   * Nothing a unit can see depends on the process it runs in: no address, no hash order, no clock, no collector.
--
-- A unit is a table of the kernel. Read here: listed. Written here: env, string.

local K = ...
local raw = K.raw

local raw_type, raw_next, raw_rawset = raw.type, raw.next, raw.rawset
local raw_tostring, raw_error, raw_setmetatable = raw.tostring, raw.error, raw.setmetatable
local metatable_of, class_of = raw.debug.getmetatable, K.class_of
local globals, guard, shared_behind = K.globals, K.guard, K.shared_behind
local string = K.libs.string

local overlay_meta = {}
for name, shared in raw_next, K.libs do
  local mt = guard({}, shared)
  if name == "string" then
    mt.__call = function(_, v) return K.as_string(v) end
  end
  overlay_meta[name] = mt
end

local string_meta = metatable_of("") -- the real one, behind every string of the VM
string_meta.__metatable = false
string_meta.__index = string

local module_views = {}
local view_names = {} -- metatable -> name of the module

--- The name of the module or library that a table shows, "_G" for a unit's globals, nil for every other table.
function K.view_name(t)
  local mt = metatable_of(t)
  return mt and view_names[mt]
end

for name, mt in raw_next, overlay_meta do
  view_names[mt] = name
end

local function view_of(name, contents)
  local shown = {}
  for k, v in raw_next, contents do
    -- Tables inside a module are shared too.
    if raw_type(v) == "table" and not class_of(v) and not (metatable_of(v) and shared_behind[metatable_of(v)]) then
      v = view_of(name .. "." .. raw_tostring(k), v)
    end
    shown[k] = v
  end
  local mt = guard({
    __newindex = function()
      raw_error("module " .. name .. " is read-only")
    end,
    __len = function() return #shown end,
  }, shown)
  view_names[mt] = name
  return raw_setmetatable({}, mt)
end

--- The read-only form of K.modules[name] that user code gets, nil if there is no such module. Made on first use, when
--- all kernel files have been loaded.
function K.module(name)
  local view = module_views[name]
  if view == nil then
    local contents = K.modules[name]
    if contents == nil then
      return nil
    end
    view = raw_type(contents) == "table" and not class_of(contents) and view_of(name, contents) or contents
    module_views[name] = view
  end
  return view
end

-- Modules that are globals of every unit, whatever its entry lists.
K.global_modules = { errors = true, process = true, channel = true, payload = true }

local make = {}

for name, mt in raw_next, overlay_meta do
  make[name] = function(unit)
    local overlay = raw_setmetatable({}, mt)
    if name == "string" then
      unit.string = overlay
      if K.current == unit then
        string_meta.__index = overlay
      end
    end
    return overlay
  end
end

function make._G(unit)
  return unit.env
end

function make.package(unit)
  local env = unit.env
  local loaded = { _G = env }
  for name in raw_next, overlay_meta do
    loaded[name] = env[name]
  end
  return { loaded = loaded, path = "", cpath = "" }
end

-- What is not in an environment itself: functions every unit shares come straight from `globals`; library tables are
-- made for the unit that asks first. Only the running unit's code can ask, so the unit is K.current.
raw_setmetatable(globals, {
  __index = function(_, name)
    local unit, made_for = K.current, make[name]
    local v
    if made_for then
      v = made_for(unit)
    elseif K.global_modules[name] or unit.listed and unit.listed[name] then
      v = K.module(name)
    end
    if v ~= nil then
      raw_rawset(unit.env, name, v)
    end
    return v
  end,
})

local env_meta = guard({}, globals)
view_names[env_meta] = "_G"

-- `pairs(_G)` shows the library tables too, made or not.
env_meta.__pairs = function(env)
  for name in raw_next, make do
    local _ = env[name]
  end
  for name in raw_next, K.global_modules do
    local _ = env[name]
  end
  for name in raw_next, K.current.listed or {} do
    local _ = env[name]
  end
  return K.ordered_pairs(env)
end

--- The _ENV of a unit: an empty table until the unit's code looks something up. `unit.env` is set to it.
function K.make_env(unit)
  local env = raw_setmetatable({}, env_meta)
  unit.env = env
  return env
end

--- Make `unit` the running one. The kernel calls this before each activation.
function K.enter(unit)
  K.current = unit
  string_meta.__index = unit.string or string
end

--- Between activations no unit runs.
function K.leave()
  K.current = nil
  string_meta.__index = string
end
