-- `process.registry`: names for processes (contract section 7.5).

local K = ...
local raw = K.raw

local M = { LOCAL = 0, EVENTUAL = 1, CONSISTENT = 2, STRONG = 3 }

local NAME_BYTES_MAX = 250 -- as in node/units/names.py

local function check_name(what, name)
  if K.current.deterministic then
    return K.new_error("Internal", "process.registry." .. what .. " not supported in workflow context", false)
  elseif raw.type(name) ~= "string" or name == "" then
    return K.new_error("Invalid", "name must be a non-empty text", false)
  elseif #name > NAME_BYTES_MAX then
    return K.new_error("Invalid", "a name has at most " .. NAME_BYTES_MAX .. " bytes", false)
  end
  return nil
end

local function check_scope(scope)
  if scope == nil then
    return M.LOCAL
  elseif raw.math.type(scope) ~= "integer" or scope < M.LOCAL or scope > M.STRONG then
    return nil, K.new_error("Invalid", "scope must be process.registry.LOCAL, EVENTUAL, CONSISTENT or STRONG", false)
  end
  return scope
end

function M.register(name, pid, scope)
  if scope == nil and raw.type(pid) == "number" then
    pid, scope = nil, pid -- register(name, scope)
  end
  local err = check_name("register", name)
  if err then
    return nil, err
  elseif pid ~= nil and (raw.type(pid) ~= "string" or not raw.string.find(pid, "^{.*|.+}$")) then
    return nil, K.new_error("Invalid", "pid must be a PID", false)
  end
  scope, err = check_scope(scope)
  if err then
    return nil, err
  end
  return K.op_wait("name.register", name, nil, K.encode_options({ pid = pid or K.current.pid, scope = scope }))
end

function M.lookup(name)
  local err = check_name("lookup", name)
  if err then
    return nil, err
  end
  return K.op_wait("name.lookup", name)
end

function M.unregister(name, scope)
  local err = check_name("unregister", name)
  if err then
    return nil, err
  end
  scope, err = check_scope(scope)
  if err then
    return nil, err
  end
  return K.op_wait("name.unregister", name, nil, K.encode_options({ scope = scope }))
end

K.modules.process.registry = M
