-- `sql`: databases. Here are the objects and the checks of arguments; statements run in `node.modules.sql`.
--
-- Parameters are always bound, never written into the statement. They travel as a flat list (nil allowed), because a
-- table with a hole in it has no length.

local K = ...
local raw = K.raw

-- What SQLite takes in one statement (SQLITE_MAX_VARIABLE_NUMBER).
local PARAMETERS_MAX = 32766

local null_object = K.class("sql.NULL", {}, { __tostring = function() return "NULL" end })({})
local BYTES = K.key("bytes")
local new_binary = K.class("sql.Binary", {}, { __tostring = function(b) return b[BYTES] end })

local function sendable(value, where)
  local kind = K.type(value)
  if value == null_object or kind == "nil" then
    return nil
  elseif K.class_of(value) == "sql.Binary" then
    return { value[BYTES] } -- a list of one: bytes even if they are valid text
  elseif kind == "string" or kind == "number" or kind == "boolean" then
    return value
  end
  return nil, K.new_error("Invalid", "parameter " .. where .. " is a " .. kind ..
    "; only texts, numbers, booleans, nil and sql.NULL can be bound", false)
end

-- The parameters as (style, count, flat list), or nil and an Error. ? takes a list, :name a table with texts as keys.
local function flat_parameters(params)
  if params == nil then
    return "list", 0, {}
  elseif K.type(params) ~= "table" then
    return nil, K.new_error("Invalid", "parameters must be a table, not a " .. K.type(params), false)
  end
  local flat, last, named = {}, 0, {}
  for key in raw.next, params do
    if raw.math.type(key) == "integer" and key >= 1 and key <= PARAMETERS_MAX then
      last = raw.math.max(last, key)
    elseif raw.type(key) == "string" then
      named[#named + 1] = key
    else
      return nil, K.new_error("Invalid", "parameter " .. K.tostring(key) ..
        " has no place: a list of at most " .. PARAMETERS_MAX .. " or names are possible", false)
    end
  end
  if last > 0 and #named == 1 and named[1] == "n" and raw.math.type(params.n) == "integer"
      and params.n >= last and params.n <= PARAMETERS_MAX then
    last, named = params.n, {} -- table.pack
  end
  if last > 0 and #named > 0 then
    return nil, K.new_error("Invalid", "parameters must be a list (for ?) or have names (for :name), not both", false)
  end
  if #named == 0 then
    for i = 1, last do
      local value, err = sendable(params[i], i)
      if err then
        return nil, err
      end
      flat[i] = value
    end
    return "list", last, flat
  end
  raw.table.sort(named)
  for i, name in raw.ipairs(named) do
    local value, err = sendable(params[name], name)
    if err then
      return nil, err
    end
    flat[2 * i - 1], flat[2 * i] = name, value
  end
  return "named", 2 * #named, flat
end

local function check_text(text)
  if raw.type(text) ~= "string" or not raw.string.find(text, "%S") then
    return K.new_error("Invalid", "a statement is required", false)
  end
  return nil
end

-- What runs statements is a database or a transaction: both have a reference the node knows, and may be closed.
local REF, CLOSED, OWNER, TEXT = K.key("ref"), K.key("closed"), K.key("owner"), K.key("text")

local function run(verb, runner, text, params)
  if runner[CLOSED] then
    return K.invalid(runner[CLOSED])
  end
  local err = check_text(text)
  if err then
    return nil, err
  end
  local style, n, flat = flat_parameters(params)
  if not style then
    return nil, n
  end
  return K.ask("sql." .. verb, runner[REF], text, style, raw.table.unpack(flat, 1, n))
end

local function query(self, text, params) return run("query", self, text, params) end
local function execute(self, text, params) return run("execute", self, text, params) end

-- Statements ---------------------------------------------------------------------------------------------------

local statement_methods = {}
local new_statement = K.class("sql.Statement", statement_methods, {
  __tostring = function(s) return s[CLOSED] and "sql.Statement{closed}" or "sql.Statement{}" end,
})

local function run_statement(verb, statement, params)
  if statement[CLOSED] then
    return K.invalid("the statement is closed")
  end
  return run(verb, statement[OWNER], statement[TEXT], params)
end

function statement_methods:query(params) return run_statement("query", self, params) end
function statement_methods:execute(params) return run_statement("execute", self, params) end

function statement_methods:close()
  self[CLOSED] = true
  return true
end

local function prepare(self, text)
  if self[CLOSED] then
    return K.invalid(self[CLOSED])
  end
  local err = check_text(text)
  if err then
    return nil, err
  end
  local ok, problem = K.ask("sql.check", self[REF], text)
  if not ok then
    return nil, problem
  end
  return new_statement({ [OWNER] = self, [TEXT] = text, [CLOSED] = false })
end

-- Transactions -------------------------------------------------------------------------------------------------

local transaction_methods = { query = query, execute = execute, prepare = prepare }
local new_transaction = K.class("sql.Transaction", transaction_methods, {
  __tostring = function(t) return t[CLOSED] and "sql.Transaction{ended}" or "sql.Transaction{}" end,
})

for _, verb in raw.ipairs({ "commit", "rollback" }) do
  transaction_methods[verb] = function(self)
    if self[CLOSED] then
      return K.invalid(self[CLOSED])
    end
    self[CLOSED] = "the transaction has ended"
    return K.ask("sql." .. verb, self[REF])
  end
end

for _, verb in raw.ipairs({ "savepoint", "rollback_to", "release" }) do
  transaction_methods[verb] = function(self, name)
    if self[CLOSED] then
      return K.invalid(self[CLOSED])
    elseif raw.type(name) ~= "string" or not raw.string.find(name, "^[%a_][%w_]*$") then
      return K.invalid("a savepoint's name is made of letters, digits and _")
    end
    return K.ask("sql." .. verb, self[REF], name)
  end
end

-- Databases ----------------------------------------------------------------------------------------------------

local db_methods = { query = query, execute = execute, prepare = prepare }
local new_db = K.class("sql.DB", db_methods, {
  __tostring = function(db) return db[CLOSED] and "sql.DB{released}" or "sql.DB{}" end,
})

function db_methods:type()
  return "sqlite"
end

function db_methods:begin()
  if self[CLOSED] then
    return K.invalid(self[CLOSED])
  end
  local ref, err = K.ask("sql.begin", self[REF])
  if not ref then
    return nil, err
  end
  return new_transaction({ [REF] = ref, [CLOSED] = false })
end

--- The database is let go of. Any number of times; transactions that are open go on.
function db_methods:release()
  self[CLOSED] = "the database is released; get it again with sql.get"
  return true
end

local function get(id)
  if raw.type(id) ~= "string" or id == "" then
    return K.invalid("the id of a database is required")
  end
  local ref, err = K.ask("sql.open", id)
  if not ref then
    return nil, err
  end
  return new_db({ [REF] = ref, [CLOSED] = false })
end

local function no_such(value, kind)
  return K.invalid(K.tostring(value) .. " is no " .. kind)
end

--- Values as a column type, or nil and an Error if they cannot be one.
local as = {
  int = function(v)
    local number = raw.math.tointeger(raw.tonumber(v) or 0.5)
    if not number then
      return no_such(v, "integer")
    end
    return number
  end,
  float = function(v)
    local number = raw.tonumber(v)
    if not number then
      return no_such(v, "number")
    end
    return number + 0.0
  end,
  text = function(v) return v == nil and null_object or K.tostring(v) end,
  binary = function(v)
    if raw.type(v) ~= "string" then
      return no_such(v, "text")
    end
    return new_binary({ [BYTES] = v })
  end,
  null = function() return null_object end,
}

K.modules.sql = { get = get, as = as, NULL = null_object, type = { SQLITE = "sqlite" } }
