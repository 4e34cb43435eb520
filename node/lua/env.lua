-- `env`: variables of the registry's `env.*` entries (contract section 14.5).
--
-- What a name means and what its storage holds is known to the node (`node.modules.env`).

local K = ...

local M = {}

local function check_name(name)
  if name == "" then
    return K.invalid("a variable name is required")
  end
  return true
end

function M.get(name)
  K.expect(name, "string", 1, "get")
  local ok, err = check_name(name)
  if not ok then
    return nil, err
  end
  return K.ask("env.get", name)
end

function M.set(name, value)
  K.expect(name, "string", 1, "set")
  K.expect(value, "string", 2, "set")
  local ok, err = check_name(name)
  if not ok then
    return nil, err
  end
  return K.ask("env.set", name, value)
end

function M.get_all()
  return K.ask("env.get_all")
end

K.modules.env = M
