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

local function text_of(v)
  if K.class_of(v) == "Error" then
    return v[MESSAGE]
  end
  return K.tostring and K.tostring(v) or raw.tostring(v)
end

local function joinable(v)
  local kind = raw.type(v)
  if kind ~= "string" and kind ~= "number" and not K.class_of(v) then
    raw.error("attempt to concatenate a " .. kind .. " value", 3)
  end
  return text_of(v)
end

local new_object = K.class("Error", methods, {
  __tostring = function(e) return e[MESSAGE] end,
  __concat = function(a, b) return joinable(a) .. joinable(b) end,
})

-- Users are shown their own files alone. Kernel chunks are named "=[...]", C functions "=[C]".
local function is_users(info)
  return raw.string.byte(info.source, 1) == 64
end

--- The user's own frames of a coroutine (nil: the running one), innermost first: texts `file.lua:12: in function 'name'`
--- and the frames of `errors.call_stack`. Of a deep recursion only the innermost ones.
function K.user_frames(co)
  local lines, frames, level, info = {}, {}, 0, nil
  co = co or raw.coroutine.running()
  repeat
    info = raw.debug.getinfo(co, level, "Sln")
    if info and is_users(info) then
      if #lines >= K.limits.frames_max then
        lines[#lines + 1] = "..."
        return lines, frames
      end
      frames[#frames + 1] = {
        level = #frames, source = info.short_src, line = info.currentline, name = info.name or "?", type = info.what,
      }
      lines[#lines + 1] = raw.string.format("%s:%d: in %s", info.short_src, info.currentline,
        info.name and "function '" .. info.name .. "'"
        or raw.string.format("function <%s:%d>", info.short_src, info.linedefined))
    end
    level = level + 1
    -- Each look at a level walks there from the top: all levels of a deep recursion would take minutes.
  until info == nil or level >= 200
  if info == nil and #lines > 0 then
    -- The outermost function has no name, as nobody of the user's has called it.
    lines[#lines] = raw.string.gsub(lines[#lines], " in function <.*$", " in main function")
  end
  return lines, frames
end

--- Make an Error. kind "" means unknown; retryable is true, false or nil (not said); an empty details table reads as nil.
--- Without a stack (false: it has none) it remembers where the running code is.
function K.new_error(kind, message, retryable, details, stack)
  if details ~= nil and raw.next(details) == nil then
    details = nil
  end
  local frames
  if stack == nil and K.current then
    local lines
    lines, frames = K.user_frames()
    if lines[1] then
      stack = message .. "\n\t" .. raw.table.concat(lines, "\n\t")
    else
      frames = nil
    end
  end
  return new_object({
    [KIND] = kind or "", [MESSAGE] = message, [RETRYABLE] = retryable, [DETAILS] = details,
    [STACK] = stack or nil, [FRAMES] = frames,
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

-- The stack of an Error, then those of what it wraps.
local function full_stack(e)
  local parts = {}
  while e do
    parts[#parts + 1] = e[STACK] or e[MESSAGE]
    e = e[CAUSE]
  end
  return raw.table.concat(parts, "\n")
end

--- The wire form: a plain table of the fields that are set.
function K.error_to_wire(e)
  return {
    message = e[MESSAGE], kind = e[KIND], retryable = e[RETRYABLE], details = e[DETAILS],
    stack = (e[STACK] or e[CAUSE]) and full_stack(e) or nil,
  }
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
  return K.new_error(text_or(t.kind, ""), text_or(t.message, ""), retryable, details, text_or(t.stack, false))
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
    local e = K.new_error("Internal", v[MESSAGE], v[RETRYABLE], v[DETAILS], v[STACK] or stack)
    e[FRAMES], e[CAUSE] = v[FRAMES], v[CAUSE]
    return e
  end
  return K.new_error("Internal", text_of(v), nil, nil, stack)
end

function methods:kind() return self[KIND] end
function methods:message() return self[MESSAGE] end
function methods:retryable() return self[RETRYABLE] end
function methods:details() return self[DETAILS] end

function methods:stack() return full_stack(self) end

local M = {
  UNKNOWN = "", INVALID = "Invalid", NOT_FOUND = "NotFound", ALREADY_EXISTS = "AlreadyExists",
  PERMISSION_DENIED = "PermissionDenied", UNAVAILABLE = "Unavailable", INTERNAL = "Internal",
  CANCELED = "Canceled", CONFLICT = "Conflict", TIMEOUT = "Timeout", RATE_LIMITED = "RateLimited",
}

local function check_field(spec, field, expected)
  local value = spec[field]
  if value ~= nil and K.type(value) ~= expected then
    raw.error("bad argument #1 to 'errors.new' (" .. field .. " must be a " .. expected .. ", got " .. K.type(value) .. ")", 3)
  end
end

--- `errors.new(text)` or `errors.new{message=, kind=, retryable=, details=}`.
function M.new(spec)
  if raw.type(spec) == "string" then
    return (K.new_error("", spec))
  elseif K.type(spec) ~= "table" or raw.type(spec.message) ~= "string" then
    K.raise("bad argument #1 to 'errors.new' (text or a table with a message expected, got " .. K.type(spec) .. ")")
  end
  check_field(spec, "kind", "string")
  check_field(spec, "retryable", "boolean")
  check_field(spec, "details", "table")
  return (K.new_error(spec.kind, spec.message, spec.retryable, spec.details))
end

--- An Error that says the same as the first argument; the context is only in its stack, above that of the first.
function M.wrap(err, context)
  local e
  if K.is_error(err) then
    e = K.new_error(err[KIND], err[MESSAGE], err[RETRYABLE], err[DETAILS])
    e[CAUSE] = err
  elseif raw.type(err) == "string" then
    e = K.new_error("", err)
    e[CAUSE] = K.new_error("", err, nil, nil, err)
  else
    K.raise("bad argument #1 to 'errors.wrap' (Error or text expected, got " .. K.type(err) .. ")")
  end
  if not K.is_error(context) and raw.type(context) ~= "string" then
    K.raise("bad argument #2 to 'errors.wrap' (text or Error expected, got " .. K.type(context) .. ")")
  end
  e[STACK] = text_of(context) .. raw.string.sub(e[STACK] or e[MESSAGE], #e[MESSAGE] + 1)
  return e
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
