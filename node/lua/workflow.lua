-- `workflow`: what code may ask about its own run (contract section 11.10).

local K = ...
local raw = K.raw

local W = {}

function W.info()
  local unit = K.current
  if not unit.deterministic then
    return nil
  end
  local info = {}
  for k, v in raw.next, unit.info do
    info[k] = v
  end
  info.history_length, info.history_size = unit.history_length, unit.history_size
  return info
end

function W.exec(id, ...)
  local unit = K.current
  if not unit.deterministic then
    return nil, K.new_error("Invalid", "workflow.exec works in workflows only; use process.exec", false)
  end
  return K.modules.process.exec(id, unit.info.worker, ...)
end

--- Version of a change: recorded per run. The mark is looked up in the whole history, wherever it stands; a run
--- that passed here before the change existed (there is more history, and no mark) keeps `min`.
function W.version(change, min, max)
  if raw.type(change) ~= "string" or change == "" or #change > 100 then
    return K.invalid("change must be a text of 1 to 100 bytes")
  elseif raw.math.type(min) ~= "integer" or raw.math.type(max) ~= "integer" or min > max then
    return K.invalid("min and max must be integers, min not above max")
  end
  local unit = K.current
  if not unit.deterministic then
    return max
  end
  local version = unit.marks[change]
  if version == nil then
    version = unit.replaying and min or max
    unit.marks[change] = version
    K.tell("mark", change, K.encode_payload(version))
  end
  if raw.math.type(version) ~= "integer" then
    return nil, K.new_error("Invalid", "change " .. change .. " is recorded as something that is no version", false)
  elseif version < min or version > max then
    return nil, K.new_error("Invalid", "change " .. change .. " is recorded as version " .. version ..
      ", the code supports " .. min .. " to " .. max, false)
  end
  return version
end

function W.attrs(spec)
  if K.type(spec) ~= "table" then
    return K.invalid("a table with search and/or memo is required")
  end
  for _, name in raw.ipairs({ "search", "memo" }) do
    local values = spec[name]
    local fits = values == nil or K.type(values) == "table"
    for key in raw.next, fits and values or {} do
      fits = fits and raw.type(key) == "string"
    end
    if not fits then
      return K.invalid(name .. " must be a table with texts as keys")
    end
  end
  local bytes, err = K.encode({ search = spec.search, memo = spec.memo })
  if not bytes then
    return K.invalid("attributes cannot be stored: " .. err)
  end
  if K.current.deterministic then
    K.tell("attrs", "", bytes)
  end
  return true
end

function W.history_length() return K.current.deterministic and K.current.history_length or 0 end
function W.history_size() return K.current.deterministic and K.current.history_size or 0 end

K.modules.workflow = W
