-- Code: sources are compiled once for each VM, and made into the functions of a unit (`K.compile`, `K.load_main`), with its
-- libraries and imports (`require`).
--
-- Of a unit, read here: spec, env, listed; written: imports, and task and loading while its chunks run.

local K = ...
local raw = K.raw

local code = {} -- key -> what makes the chunk's function for given globals

--- Compile a source once per VM; returns nil, or the error text.
---
--- What is kept is a function that makes the chunk's function for given globals: all units share one prototype, and
--- making a unit's code is one closure. The wrapper stands on the source's first line, so line numbers stay.
function K.compile(key, source, chunk_name)
  -- Alone first: a source that only makes sense inside the wrapper is refused.
  local chunk, err = raw.load(source, "@" .. chunk_name, "t", {})
  if not chunk then
    return err
  end
  code[key] = raw.load("return function(_ENV, " .. K.limits.join_name .. ") return function(...) " .. source .. "\nend end",
    "@" .. chunk_name, "t", {})()
  return nil
end

local function run_chunk(key, env)
  return code[key](env, K.join)()
end

-- A library sees its own imports, and otherwise the globals of its unit.
local function library_env(unit, imports)
  local own = {}
  for alias, value in raw.next, imports do
    own[alias] = value
  end
  function own.require(name)
    local value = imports[name]
    if value == nil then
      value = unit.env.require(name)
    end
    return value
  end
  return raw.setmetatable(own, { __index = unit.env, __newindex = unit.env, __metatable = false })
end

local function pick(imports, values)
  local picked = {}
  for alias, id in raw.next, imports or {} do
    picked[alias] = values[id]
  end
  return picked
end

--- `require(name)`: a lookup among what the entry lists, and what is always there.
function K.globals.require(name)
  local unit = K.current
  local value = unit.imports[name]
  if value == nil and (unit.listed[name] or K.global_modules[name] or K.libs[name]) then
    value = unit.env[name]
    if value == nil then
      value = K.module(name)
    end
  end
  if value == nil then
    K.raise("module '" .. K.tostring(name) .. "' not found")
  end
  return value
end

--- Run the chunks of a unit: libraries first, each once, each with its imports; then the entry's, which gives the main
--- function.
function K.load_main(unit)
  local env, spec, values, task = unit.env, unit.spec, {}, unit.task
  unit.task, unit.loading = nil, true -- a file's top level may not wait
  for _, lib in raw.ipairs(spec.libraries or {}) do
    values[lib.id] = run_chunk(lib.code, library_env(unit, pick(lib.imports, values)))
  end
  unit.imports = pick(spec.imports, values)
  for alias, value in raw.next, unit.imports do
    raw.rawset(env, alias, value)
  end
  local got = run_chunk(spec.code, env)
  unit.task, unit.loading = task, false
  if raw.type(got) == "function" then
    return got
  end
  local main = K.type(got) == "table" and got[spec.method] or nil
  if raw.type(main) ~= "function" then
    raw.error(K.new_error("NotFound", 'method "' .. spec.method .. '" not found in module', false), 0)
  end
  return main
end
