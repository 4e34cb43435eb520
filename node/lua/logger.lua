-- The module `logger` (contract section 14.1) and `K.log`, through which it and `print` write.
--
-- A line leaves as the op `log`: level, text, and what else is known of it (fields, the logger's name, the place in the
-- user's code). What becomes of it is the drivers' affair (`node.unit_logs`).
--
-- Invariant: a workflow that replays is silent (unless its worker wants otherwise) but does all the same work. Making a
-- text may run code of the user's and numbers the tables it shows, so it comes before the question whether anybody is
-- told.

local K = ...
local raw = K.raw
local byte, getinfo, sformat, sub, type = raw.string.byte, raw.debug.getinfo, raw.string.format, raw.string.sub, raw.type

local FIELDS_DEPTH_MAX <const> = 16 -- of tables in a field; deeper ones are shown by their name

--- The place of the innermost frame that is the user's: `file.lua:12`; nil when a tail call left none.
local function source_of_caller()
  local level = 2
  while level < 200 do
    local info = getinfo(level, "Sl")
    if not info then
      return nil
    elseif byte(info.source, 1) == 64 then
      return sformat("%s:%d", sub(info.source, 2), info.currentline)
    end
    level = level + 1
  end
  return nil
end

--- A line for the node's log. fields: a table of texts, numbers, booleans and tables of them, or nil.
local function log(level, text, fields, name)
  if K.current.replaying and not K.current.logs_in_replay then
    return
  end
  local options, problem = K.encode({ fields = fields, name = name, source = source_of_caller() })
  if not options then
    options = K.encode({ fields = { unreadable_fields = problem }, name = name, source = source_of_caller() })
  end
  K.tell("log", level, text, options)
end

K.log = log

--- A value as it can stand in a log line: Errors, objects and functions as their text.
local function shown(value, depth)
  local kind = type(value)
  if kind == "string" or kind == "number" or kind == "boolean" then
    return value
  end
  local mt = raw.debug.getmetatable(value)
  if kind ~= "table" or depth > FIELDS_DEPTH_MAX or K.class_of(value) or mt and raw.rawget(mt, "__tostring") then
    return K.tostring(value)
  end
  local copy = {}
  for key, item in K.ordered_pairs(value) do
    if type(key) ~= "string" and type(key) ~= "number" then
      key = K.tostring(key)
    end
    copy[key] = shown(item, depth + 1)
  end
  return copy
end

local function merged(fields, more, position, what)
  if more == nil then
    return fields
  elseif K.is_error(more) then
    more = { error = more } -- what people pass when something failed
  elseif K.type(more) ~= "table" then
    raw.error(sformat("bad argument #%d to '%s' (a table of fields expected, got %s)", position, what, K.type(more)), 3)
  end
  local all = {}
  for key, value in raw.next, fields or {} do
    all[key] = value
  end
  for key, value in K.ordered_pairs(more) do
    all[K.tostring(key)] = shown(value, 1)
  end
  return all
end

local FIELDS, NAME = K.key("fields"), K.key("name")
local methods = {}
local new_logger = K.class("Logger", methods, {
  __tostring = function(l) return l[NAME] and "logger{name=" .. l[NAME] .. "}" or "logger" end,
})

for _, level in raw.ipairs({ "debug", "info", "warn", "error" }) do
  methods[level] = function(self, text, fields)
    text, fields = K.tostring(text), merged(self[FIELDS], fields, 2, level)
    log(level, text, fields, self[NAME])
  end
end

--- A logger whose lines all carry these fields too.
function methods:with(fields)
  if fields == nil then
    K.raise("bad argument #1 to 'with' (a table of fields expected, got nil)")
  end
  return new_logger({ [FIELDS] = merged(self[FIELDS], fields, 1, "with"), [NAME] = self[NAME] })
end

--- A logger of this name; names of names are joined by dots.
function methods:named(name)
  if type(name) ~= "string" or name == "" then
    K.raise("bad argument #1 to 'named' (a non-empty name expected, got " ..
      (name == "" and "an empty one" or K.type(name)) .. ")")
  end
  return new_logger({ [FIELDS] = self[FIELDS], [NAME] = self[NAME] and self[NAME] .. "." .. name or name })
end

K.modules.logger = new_logger({})
