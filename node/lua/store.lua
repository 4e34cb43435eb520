-- `store`: keys and values, in the node's memory or in a bucket of the mesh (contract section 14.6).
--
-- A Store object is a name and a flag; the values are the node's business (`node.modules.store`).

local K = ...
local raw = K.raw

local ID, RELEASED = K.key("id"), K.key("released")

local methods = {}
local new_store = K.class("store.Store", methods, {
  __tostring = function(s) return s[RELEASED] and "store.Store{released}" or "store.Store{}" end,
})

-- Whether a call can go on: the store is there and the key is one.
local function check(store, key)
  if store[RELEASED] then
    return K.invalid("the store is released; get it again with store.get")
  elseif key == "" then
    return K.invalid("the key must not be empty")
  end
  return true
end

-- What is the same in all calls that take a key and nothing else.
for _, verb in raw.ipairs({ "get", "has", "delete", "entry" }) do
  methods[verb] = function(self, key)
    K.expect(key, "string", 1, verb)
    local ok, err = check(self, key)
    if not ok then
      return nil, err
    end
    return K.ask("store." .. verb, self[ID], key)
  end
end

-- The same for a value that is to be there under a key.
local function check_value(store, key, value)
  local ok, err = check(store, key)
  if ok and value == nil then
    return K.invalid("the value is nil; to remove a key, delete it")
  end
  return ok, err
end

--- Set a key. ttl: seconds; nil and 0 mean for ever, also when the key had a time to live before.
function methods:set(key, value, ttl)
  K.expect(key, "string", 1, "set")
  if ttl ~= nil then
    K.expect(ttl, "number", 3, "set")
  end
  local ok, err = check_value(self, key, value)
  if not ok then
    return nil, err
  end
  return K.ask("store.set", self[ID], key, value, ttl)
end

--- Set a key on a condition; the new entry. Options: ttl, if_version, only_if_absent.
function methods:put(key, value, options)
  K.expect(key, "string", 1, "put")
  if options == nil then
    options = {}
  end
  K.expect(options, "table", 3, "put")
  local ok, err = check_value(self, key, value)
  if not ok then
    return nil, err
  end
  return K.ask("store.put", self[ID], key, value, options)
end

--- A page of entries in the order of their keys: items, cursor, has_more. Options: prefix, after, limit.
function methods:list(options)
  if options == nil then
    options = {}
  end
  K.expect(options, "table", 1, "list")
  local ok, err = check(self)
  if not ok then
    return nil, err
  end
  return K.ask("store.list", self[ID], options)
end

function methods:info()
  local ok, err = check(self)
  if not ok then
    return nil, err
  end
  return K.ask("store.info", self[ID])
end

--- Let go of the store; any number of times. What it holds stays.
function methods:release()
  self[RELEASED] = true
  return true
end

local M = {
  backend = { MEMORY = "memory", KV = "kv" },
  consistency = { LINEARIZABLE = "linearizable", LOCAL = "local" },
}

function M.get(id)
  K.expect(id, "string", 1, "get")
  if id == "" then
    return K.invalid("a store ID is required")
  end
  local found, err = K.ask("store.open", id)
  if found == nil then
    return nil, err
  end
  return new_store({ [ID] = found, [RELEASED] = false })
end

K.modules.store = M
