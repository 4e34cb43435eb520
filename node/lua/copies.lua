-- Copies of plain data: what a message between two processes of one VM carries, in place of its encoded form.
--
-- Invariant: a copy equals what decoding the encoded value gives (msgpack.lua). What is not plain (objects, tables with a
-- metatable, functions, keys that cannot be sent, tables nested too deep) gives no copy: the codec then has the last word.
-- There is no limit on the size: copying costs the sender instructions and memory of its step, which have one.

local K = ...
local raw = K.raw
local raw_type, raw_next, metatable_of = raw.type, raw.next, raw.debug.getmetatable

local NAN = raw.string.unpack(">d", "\x7F\xF8\0\0\0\0\0\0") -- the codec knows one

-- nil for a table that is not plain all through.
local function copy_table(t, depth)
  if depth > K.limits.depth_max or metatable_of(t) then
    return nil
  end
  local copy, n = {}, 0
  for k, v in raw_next, t do
    if k == n + 1 then
      n = k -- the next item of a list: no need to look at its type
    else
      local kind = raw_type(k)
      if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
        return nil
      end
    end
    local kind = raw_type(v)
    if kind == "table" then
      v = copy_table(v, depth + 1)
      if v == nil then
        return nil
      end
    elseif kind == "number" then
      if v ~= v then
        v = NAN
      end
    elseif kind ~= "string" and kind ~= "boolean" then
      return nil
    end
    copy[k] = v
  end
  return copy
end

--- Whether v is plain data, and a copy of it.
local function copy_plain(v)
  local kind = raw_type(v)
  if kind == "table" then
    local copy = copy_table(v, 1)
    return copy ~= nil, copy
  elseif v ~= v then
    return true, NAN
  end
  return kind == "string" or kind == "number" or kind == "nil" or kind == "boolean", v
end

K.copy_plain = copy_plain

--- The bodies of a message, copied into a list with `n`; nil when one is not plain.
function K.copy_bodies(n, ...)
  if n == 1 then
    local v = (...)
    local kind = raw_type(v)
    if kind == "string" or kind == "number" and v == v then -- the usual ones first
      return { n = 1, v }
    end
    local plain, copy = copy_plain(v)
    return plain and { n = 1, copy } or nil
  end
  local bodies, values = { n = n }, { ... }
  for i = 1, n do
    local plain, copy = copy_plain(values[i])
    if not plain then
      return nil
    end
    bodies[i] = copy
  end
  return bodies
end
