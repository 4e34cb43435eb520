-- `registry`: the entries of the app and their versions (contract section 14.4).
--
-- Entries, versions and filters are the node's business (`node.modules.registry`); objects here hold numbers of
-- versions and ask. Changes are gathered here and checked when they are applied, all of them or none.

local K = ...
local raw = K.raw

local ID, PREVIOUS, VERSION, OPS = K.key("id"), K.key("previous"), K.key("version"), K.key("ops")

-- Versions ---------------------------------------------------------------------------------------------------

local version_methods = {}
local new_version_object = K.class("registry.Version", version_methods, {
  __tostring = function(v) return "v" .. raw.tostring(v[ID]) end,
  __eq = function(a, b) return K.class_of(b) == "registry.Version" and a[ID] == b[ID] end,
})

-- The node tells a version as { id, id of the previous one or nil }.
local function new_version(told)
  return new_version_object({ [ID] = told[1], [PREVIOUS] = told[2] })
end

local function version_or_error(told, err)
  if told == nil then
    return nil, err
  end
  return new_version(told)
end

function version_methods:id() return self[ID] end
function version_methods:string() return "v" .. raw.tostring(self[ID]) end

--- The version that this one was made from; nil for the first.
function version_methods:previous()
  if self[PREVIOUS] == nil then
    return nil
  end
  return version_or_error(K.ask("registry.version", self[PREVIOUS]))
end

--- The newest version that was made from this one; nil when there is none (yet).
function version_methods:next()
  return version_or_error(K.ask("registry.next", self[ID]))
end

-- The number of a version given as an object or a number; nil for anything else.
local function version_id(value)
  if K.class_of(value) == "registry.Version" then
    return value[ID]
  elseif raw.math.type(value) == "integer" then
    return value
  end
  return nil
end

--- The number of a version that a function was given: itself, or a Version.
local function version_number(value, name)
  local number = version_id(value)
  if number == nil then
    raw.error("bad argument #1 to '" .. name .. "' (a version or its number expected, got " .. K.type(value) .. ")", 3)
  end
  return number
end

-- Snapshots --------------------------------------------------------------------------------------------------

local snapshot_methods = {}
local new_snapshot_object = K.class("registry.Snapshot", snapshot_methods, {
  __tostring = function(s) return "registry.Snapshot{" .. K.tostring(s[VERSION]) .. "}" end,
})

local function snapshot_or_error(told, err)
  if told == nil then
    return nil, err
  end
  return new_snapshot_object({ [VERSION] = new_version(told) })
end

local function check_id(id)
  if id == "" then
    return K.invalid("an entry ID is required")
  end
  return true
end

function snapshot_methods:version() return self[VERSION] end
function snapshot_methods:entries() return K.ask("registry.find", self[VERSION][ID], {}) end

function snapshot_methods:get(id)
  K.expect(id, "string", 1, "get")
  local ok, err = check_id(id)
  if not ok then
    return nil, err
  end
  return K.ask("registry.get", self[VERSION][ID], id)
end

function snapshot_methods:find(filter)
  if filter == nil then
    filter = {}
  end
  K.expect(filter, "table", 1, "find")
  return K.ask("registry.find", self[VERSION][ID], filter)
end

function snapshot_methods:namespace(ns)
  K.expect(ns, "string", 1, "namespace")
  return K.ask("registry.namespace", self[VERSION][ID], ns)
end

-- Changes ----------------------------------------------------------------------------------------------------

local changes_methods = {}
local new_changes = K.class("registry.Changes", changes_methods, {
  __tostring = function(c) return "registry.Changes{" .. #c[OPS] .. "}" end,
})

function snapshot_methods:changes()
  return new_changes({ [VERSION] = self[VERSION][ID], [OPS] = {} })
end

-- A copy, so that an entry which its maker goes on changing is the one that was given.
local function add(changes, kind, entry)
  local bytes, problem = K.encode(entry)
  if not bytes then
    return K.invalid("the entry cannot be kept: " .. problem)
  end
  local ops = changes[OPS]
  ops[#ops + 1] = { kind = kind, entry = K.decode(bytes) }
  return changes
end

function changes_methods:create(entry)
  K.expect(entry, "table", 1, "create")
  return add(self, "entry.create", entry)
end

function changes_methods:update(entry)
  K.expect(entry, "table", 1, "update")
  return add(self, "entry.update", entry)
end

--- Delete an entry, by its ID or `{ ns = ..., name = ... }`.
function changes_methods:delete(id)
  if K.type(id) ~= "table" then
    K.expect(id, "string", 1, "delete")
  end
  return add(self, "entry.delete", { id = id })
end

--- What has been gathered so far: a list of `{ kind = "entry.create" | "entry.update" | "entry.delete", entry = ... }`.
function changes_methods:ops()
  return K.decode((K.encode(self[OPS])))
end

--- Make a new version with all of it, or change nothing.
function changes_methods:apply()
  return version_or_error(K.ask("registry.apply", self[VERSION], self[OPS]))
end

-- History ----------------------------------------------------------------------------------------------------

local history_methods = {}
local new_history = K.class("registry.History", history_methods, { __tostring = function() return "registry.History{}" end })

local function versions()
  local told, err = K.ask("registry.versions")
  if told == nil then
    return nil, err
  end
  local list = {}
  for i, one in raw.ipairs(told) do
    list[i] = new_version(one)
  end
  return list
end

function history_methods:versions() return versions() end

function history_methods:get_version(id)
  return version_or_error(K.ask("registry.version", version_number(id, "get_version")))
end

function history_methods:snapshot_at(version)
  return snapshot_or_error(K.ask("registry.version", version_number(version, "snapshot_at")))
end

-- Module -----------------------------------------------------------------------------------------------------

local M = {}

function M.get(id)
  K.expect(id, "string", 1, "get")
  local ok, err = check_id(id)
  if not ok then
    return nil, err
  end
  return K.ask("registry.get", nil, id)
end

function M.find(filter)
  if filter == nil then
    filter = {}
  end
  K.expect(filter, "table", 1, "find")
  return K.ask("registry.find", nil, filter)
end

--- The parts of an ID. Only the first colon splits it.
function M.parse_id(id)
  K.expect(id, "string", 1, "parse_id")
  local colon = raw.string.find(id, ":", 1, true)
  if not colon then
    return { ns = "", name = id }
  end
  return { ns = raw.string.sub(id, 1, colon - 1), name = raw.string.sub(id, colon + 1) }
end

function M.snapshot() return snapshot_or_error(K.ask("registry.current")) end
function M.current_version() return version_or_error(K.ask("registry.current")) end
M.versions = versions
function M.history() return new_history({}) end

function M.snapshot_at(version)
  return snapshot_or_error(K.ask("registry.version", version_number(version, "snapshot_at")))
end

--- Go to another version, back or forth. What was made since stays in the history.
function M.apply_version(version)
  return K.ask("registry.apply_version", version_number(version, "apply_version"))
end

-- One side of a delta: a list of entries, a snapshot or a version.
local function side(value)
  if K.class_of(value) == "registry.Snapshot" then
    return value[VERSION][ID]
  elseif K.type(value) == "table" then
    return value
  end
  return version_id(value)
end

local function check_side(value, position)
  if side(value) == nil then
    raw.error("bad argument #" .. position .. " to 'build_delta' (a list of entries, a snapshot or a version expected, got "
      .. K.type(value) .. ")", 3)
  end
end

--- The operations that lead from one set of entries to another, by ID.
function M.build_delta(from, to)
  check_side(from, 1)
  check_side(to, 2)
  return K.ask("registry.delta", side(from), side(to))
end

K.modules.registry = M
