-- The Error object and the `errors` module (contract section 4).
--
-- An Error is what user code passes around as a failure and what crosses every boundary (function call,
-- child workflow, message) without losing kind, message, retryable or details. On the wire it is the map
-- {message, kind, retryable, details, stack}; `K.error_to_wire` and `K.error_from_wire` are the only places
-- that know both forms.

local K = ...
local raw = K.raw

K.limits = K.limits or {}
K.limits.frames_max = K.limits.frames_max or 30 -- of a stack that is shown to people

local KIND, MESSAGE, RETRYABLE = K.key("kind"), K.key("message"), K.key("retryable")
local DETAILS, STACK, FRAMES, CAUSE = K.key("details"), K.key("stack"), K.key("frames"), K.key("cause")

local methods = {}
local new_object

local function text_of(v)
  if K.class_of(v) == "Error" then
    return v[MESSAGE]
  end
  return K.tostring and K.tostring(v) or raw.tostring(v)
end

new_object = K.class("Error", methods, {
  __tostring = function(e) return e[MESSAGE] end,
  __concat = function(a, b) return text_of(a) .. text_of(b) end,
})

--- Make an Error. kind "" means unknown; retryable is true, false or nil (not said); an empty details table reads as nil.
function K.new_error(kind, message, retryable, details, stack)
  if details ~= nil and raw.next(details) == nil then
    details = nil
  end
  return new_object({
    [KIND] = kind or "", [MESSAGE] = message, [RETRYABLE] = retryable, [DETAILS] = details, [STACK] = stack,
  })
end

--- Whether v is an Error.
function K.is_error(v)
  return K.class_of(v) == "Error"
end

--- The text of an Error, or nil when v is no Error. Used by everything that takes a string.
function K.error_text(v)
  if K.class_of(v) == "Error" then
    return v[MESSAGE]
  end
  return nil
end

--- `nil, Error` for a bad argument value (contract section 4, last rule).
function K.invalid(message)
  return nil, K.new_error("Invalid", message, false)
end

--- The wire form: a plain table of the fields that are set.
function K.error_to_wire(e)
  return { message = e[MESSAGE], kind = e[KIND], retryable = e[RETRYABLE], details = e[DETAILS], stack = e[STACK] }
end

local function text_or(v, default)
  if raw.type(v) == "string" then
    return v
  end
  if v == nil then
    return default
  end
  return raw.type(v) == "number" and raw.tostring(v) or "(" .. raw.type(v) .. ")"
end

--- An Error from its wire form; whoever wrote it may have put anything into its fields.
function K.error_from_wire(t)
  local retryable, details = t.retryable, t.details
  if raw.type(retryable) ~= "boolean" then
    retryable = nil
  end
  if K.type(details) ~= "table" then
    details = nil
  end
  return K.new_error(text_or(t.kind, ""), text_or(t.message, ""), retryable, details, text_or(t.stack, nil))
end

--- A raised value (anything) as the Error a unit fails with: a raised Error keeps its kind (empty -> Internal), all else is Internal.
function K.error_from_raised(v, stack)
  if K.is_error(v) then
    if v[KIND] ~= "" then
      if v[STACK] == nil then
        v[STACK] = stack
      end
      return v
    end
    return K.new_error("Internal", v[MESSAGE], v[RETRYABLE], v[DETAILS], v[STACK] or stack)
  end
  return K.new_error("Internal", text_of(v), nil, nil, stack)
end

--- Stamp the place where an Error was made, once.
function K.stamp_stack(e, stack, frames)
  e[STACK], e[FRAMES] = stack, frames
  return e
end

function methods:kind() return self[KIND] end
function methods:message() return self[MESSAGE] end
function methods:retryable() return self[RETRYABLE] end
function methods:details() return self[DETAILS] end

function methods:stack()
  local parts, e = {}, self
  while e do
    parts[#parts + 1] = e[STACK] or e[MESSAGE]
    e = e[CAUSE]
  end
  return raw.table.concat(parts, "\n")
end

local M = {
  UNKNOWN = "", INVALID = "Invalid", NOT_FOUND = "NotFound", ALREADY_EXISTS = "AlreadyExists",
  PERMISSION_DENIED = "PermissionDenied", UNAVAILABLE = "Unavailable", INTERNAL = "Internal",
  CANCELED = "Canceled", CONFLICT = "Conflict", TIMEOUT = "Timeout", RATE_LIMITED = "RateLimited",
}

--- The user's frames of the calling coroutine: a traceback text and the frames behind errors.call_stack.
local function where()
  local frames, lines, level = {}, {}, 3
  -- Each look at a level walks there from the top: all levels of a deep recursion would take minutes.
  while #frames < K.limits.frames_max and level < 200 do
    local info = raw.debug.getinfo(level, "Sln")
    if not info then
      break
    end
    -- Kernel chunks are named "=[...]": users are shown only their own files.
    if info.source:byte(1) == 64 then
      frames[#frames + 1] = {
        level = #frames, source = info.short_src, line = info.currentline, name = info.name or "?", type = info.what,
      }
      lines[#lines + 1] = info.short_src .. ":" .. raw.tostring(info.currentline) .. ": in " .. (info.name or "main chunk")
    end
    level = level + 1
  end
  return lines, frames
end

function M.new(spec)
  local e
  if raw.type(spec) == "string" then
    e = K.new_error("", spec, nil, nil)
  elseif K.type(spec) == "table" and raw.type(spec.message) == "string" then
    e = K.new_error(spec.kind or "", spec.message, spec.retryable, spec.details)
  else
    K.raise("bad argument #1 to 'errors.new' (text or a table with a message expected, got " .. K.type(spec) .. ")")
  end
  local lines, frames = where()
  raw.table.insert(lines, 1, e[MESSAGE])
  return K.stamp_stack(e, raw.table.concat(lines, "\n\t"), frames)
end

function M.wrap(err, context)
  local e
  if K.is_error(err) then
    e = K.new_error(err[KIND], err[MESSAGE], err[RETRYABLE], err[DETAILS])
    e[CAUSE] = err
  else
    e = K.new_error("", text_of(err), nil, nil)
  end
  local lines, frames = where()
  raw.table.insert(lines, 1, text_of(context))
  return K.stamp_stack(e, raw.table.concat(lines, "\n\t"), frames)
end

function M.is(v, kind)
  return K.is_error(v) and v[KIND] == kind
end

function M.call_stack(e)
  if K.is_error(e) and e[FRAMES] then
    return { thread = "main", frames = e[FRAMES] }
  end
  return nil
end

K.modules = K.modules or {}
K.modules.errors = M
