-- Objects: what user code sees as userdata, and the untouched builtins the kernel itself uses.
--
-- Responsible for: `K.raw` (the originals of the standard library, saved before anything is wrapped),
-- `K.class` (object types with hidden state), `K.type` (what `type(x)` answers to user code), `K.now` and `K.entropy`
-- (the two doors to what differs from run to run, shut for workflows).
-- Not responsible for: which globals a unit sees (globals.lua, environment.lua).
--
-- An object is a Lua table whose metatable was made by `K.class`. Its state lives under private keys
-- (`K.key()`), unique tables that user code never gets hold of: raw access, `pairs` and `next` refuse
-- objects. Every object carries a sequence number, handed out in creation order, so that objects used as
-- table keys have an order that is the same in every process.

local K = ...

K.raw = {
  assert = assert, error = error, getmetatable = getmetatable, ipairs = ipairs, load = load, next = next,
  pairs = pairs, pcall = pcall, print = print, rawequal = rawequal, rawget = rawget, rawlen = rawlen,
  rawset = rawset, select = select, setmetatable = setmetatable, tonumber = tonumber, tostring = tostring,
  type = type, xpcall = xpcall, collectgarbage = collectgarbage,
  string = {}, table = {}, math = {}, coroutine = {}, os = {}, debug = {}, utf8 = {},
}
for _, lib in ipairs({ "string", "table", "math", "coroutine", "os", "debug", "utf8" }) do
  for name, fn in pairs(_G[lib]) do
    K.raw[lib][name] = fn
  end
end

local raw_type, raw_setmetatable, metatable_of = type, setmetatable, debug.getmetatable
local private = {} -- the private keys
local shared_seq = 0
local classes = {} -- metatable -> class name; classes live as long as the VM

--- A new private key. The name is for people who debug the kernel.
function K.key(name)
  local key = { key = name }
  private[key] = true
  return key
end

--- The private key of an object's sequence number.
K.SEQ = K.key("seq")

-- A method that refuses every self but objects of its class. Without this, `future.cancel(t)` on a table of the user's
-- would hand the private keys to the table's metamethods, and with them the insides of objects that units share.
local function guarded(mt, name, f)
  if raw_type(f) ~= "function" then
    return f
  end
  return function(self, ...)
    if metatable_of(self) ~= mt then
      K.raw.error("bad argument #1 to '" .. name .. "' (" .. mt.__name .. " expected, got " .. K.type(self)
        .. "); call it as object:" .. name .. "()", 2)
    end
    return f(self, ...)
  end
end

--- Define an object type and return its constructor: `new(fields) -> object` turns the given table (its
--- keys private keys) into an object. `methods` is what `obj:name()` finds, filled before or after; `meta` adds
--- metamethods (`__tostring`, `__concat`, `__eq`, ...); `meta.__index` replaces the method table.
function K.class(name, methods, meta)
  local mt = {}
  for method, f in K.raw.pairs(methods) do
    methods[method] = guarded(mt, method, f)
  end
  raw_setmetatable(methods, {
    __newindex = function(t, method, f) K.raw.rawset(t, method, guarded(mt, method, f)) end,
  })
  for k, v in K.raw.pairs(meta or {}) do
    mt[k] = v
  end
  mt.__name = name
  mt.__metatable = false
  mt.__index = mt.__index or methods
  mt.__newindex = mt.__newindex or function(object, k, v)
    if private[k] then
      return K.raw.rawset(object, k, v)
    end
    K.raise("cannot set field '" .. (K.tostring or K.raw.type)(k) .. "' of a " .. name)
  end
  classes[mt] = name
  local SEQ = K.SEQ
  return function(fields)
    local unit = K.current
    if unit then
      local seq = unit.next_seq
      unit.next_seq = seq + 1
      fields[SEQ] = seq
    else
      -- Made while the kernel loads: shared by all units, numbered downwards.
      shared_seq = shared_seq - 1
      fields[SEQ] = shared_seq
    end
    return raw_setmetatable(fields, mt)
  end
end

--- The class name of an object made by `K.class`, nil for every other value.
function K.class_of(v)
  if raw_type(v) ~= "table" then
    return nil
  end
  local mt = metatable_of(v)
  return mt and classes[mt]
end

--- `type` as user code sees it: objects are "userdata".
function K.type(...)
  if K.raw.select("#", ...) == 0 then
    K.raise("bad argument #1 to 'type' (value expected)")
  end
  local v = (...)
  local t = raw_type(v)
  if t == "table" then
    local mt = metatable_of(v)
    if mt and classes[mt] then
      return "userdata"
    end
  end
  return t
end

--- Raise a plain Lua error whose position is that of the user code that called the library.
function K.raise(text)
  -- Level 3: K.raise <- library function <- user code.
  K.raw.error(text, 3)
end

-- Until there are budgets (budget.lua), nothing is counted.
K.spend, K.glance, K.notice = function() end, function() end, function(...) return ... end

--- Nanoseconds since 1970. A workflow's clock stands at its event; every other unit sees the real one at each call.
function K.now()
  local unit = K.current
  if unit.deterministic then
    return unit.now
  end
  return K.host.now_ns()
end

--- n bytes of the system's randomness. Never for a workflow: its replay could not draw them again.
function K.entropy(n)
  if K.current.deterministic then
    K.raw.error("the kernel asked for randomness that a replay cannot repeat")
  end
  return K.host.entropy(n)
end

--- Raise the error of a wrong argument type (contract section 4, last rule). To be called by the library function itself.
function K.expect(value, wanted, position, name)
  local got = K.type(value)
  if got ~= wanted then
    -- Level 3: K.expect <- library function <- user code.
    K.raw.error("bad argument #" .. position .. " to '" .. name .. "' (" .. wanted .. " expected, got " .. got .. ")", 3)
  end
end
