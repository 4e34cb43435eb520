-- The `string` library of units.
--
-- Differs from C's in three things: Errors stand for their text; what could run away (patterns, `rep`) is bounded;
-- `format` shows no addresses and the same NaN everywhere.

local K = ...
local raw = K.raw

local raw_type, raw_tostring, raw_tonumber = raw.type, raw.tostring, raw.tonumber
local raw_select, raw_error, unpack = raw.select, raw.error, raw.table.unpack
local raw_format, raw_find, raw_match = raw.string.format, raw.string.find, raw.string.match
local raw_gmatch, raw_gsub, raw_rep, raw_sub = raw.string.gmatch, raw.string.gsub, raw.string.rep, raw.string.sub
local tointeger, text, tostring = raw.math.tointeger, K.arguments.text, K.tostring

K.limits = K.limits or {}
K.limits.string_bytes_max = K.limits.string_bytes_max or 64 * 1024 * 1024 -- C builds these in one uninterruptible step

-- Upper/lower case, classes, order and the decimal point come from the process' C locale. Differing nodes would give
-- differing replays, so a VM does not start in a locale that changes any of them.
do
  local high = {}
  for b = 128, 255 do
    high[#high + 1] = raw.string.char(b)
  end
  high = raw.table.concat(high)
  if raw_find(high, "[%a%s%p%d%c]") or raw.string.upper(high) ~= high or raw_tostring(1.5) ~= "1.5" or "a" < "B" then
    raw_error("the process locale changes how Lua treats text; start the node with LC_ALL=C.UTF-8", 0)
  end
end

local string = { char = raw.string.char, pack = raw.string.pack, packsize = raw.string.packsize }
K.libs.string = string

local raw_byte, raw_len, raw_lower = raw.string.byte, raw.string.len, raw.string.lower
local raw_reverse, raw_upper = raw.string.reverse, raw.string.upper

function string.byte(s, i, j)
  if raw_type(s) ~= "string" then s = text(s) end
  return raw_byte(s, i, j)
end

function string.len(s)
  return raw_len(text(s))
end

-- C goes through these in one go, about eight bytes in the time of an instruction.
local COPY_FREE_BYTES = 4096
local function spend_copy(bytes)
  if bytes > COPY_FREE_BYTES then
    K.spend(bytes // 8)
  end
end

function string.lower(s)
  if raw_type(s) ~= "string" then s = text(s) end
  if raw_type(s) == "string" then spend_copy(#s) end
  return raw_lower(s)
end

function string.reverse(s)
  s = text(s)
  if raw_type(s) == "string" then spend_copy(#s) end
  return raw_reverse(s)
end

function string.sub(s, i, j)
  if raw_type(s) ~= "string" then s = text(s) end
  return raw_sub(s, i, j)
end

function string.upper(s)
  if raw_type(s) ~= "string" then s = text(s) end
  if raw_type(s) == "string" then spend_copy(#s) end
  return raw_upper(s)
end

local raw_unpack = raw.string.unpack
function string.unpack(format, s, init)
  return raw_unpack(text(format), text(s), init)
end

local function check_bytes(n)
  if n > K.limits.string_bytes_max then
    raw_error("resulting string too large (" .. raw_format("%.0f", n) .. " bytes, limit "
      .. raw_format("%d", K.limits.string_bytes_max) .. ")")
  end
end

function string.rep(s, n, sep)
  s, sep = text(s), text(sep)
  local count = raw_tonumber(n)
  if count and count > 1 and raw_type(s) == "string" and (sep == nil or raw_type(sep) == "string") then
    local piece = #s + (sep and #sep or 0)
    if piece == 0 and tointeger(count) then
      return "" -- C would count to n
    end
    check_bytes(piece * (count + 0.0))
  end
  return raw_rep(s, n, sep)
end

local GSUB_FREE_BYTES = 64
local is_risky, linear = K.is_risky, K.linear
if not is_risky then
  raw_error("load patterns.lua before text.lua", 0)
end

function string.find(s, pattern, init, plain)
  if raw_type(s) ~= "string" then s = text(s) end
  if raw_type(pattern) ~= "string" then pattern = text(pattern) end
  if not plain and raw_type(s) == "string" and raw_type(pattern) == "string" and is_risky(s, pattern) then
    return linear.find(s, pattern, init)
  end
  return raw_find(s, pattern, init, plain)
end

function string.match(s, pattern, init)
  if raw_type(s) ~= "string" then s = text(s) end
  if raw_type(pattern) ~= "string" then pattern = text(pattern) end
  if raw_type(s) == "string" and raw_type(pattern) == "string" and is_risky(s, pattern) then
    return linear.match(s, pattern, init)
  end
  return raw_match(s, pattern, init)
end

function string.gmatch(s, pattern, init)
  s, pattern = text(s), text(pattern)
  if raw_type(s) == "string" and raw_type(pattern) == "string" and is_risky(s, pattern, true) then
    return linear.gmatch(s, pattern, init)
  end
  return raw_gmatch(s, pattern, init)
end

function string.gsub(s, pattern, repl, times)
  s, pattern = text(s), text(pattern)
  if raw_type(repl) == "table" then
    repl = text(repl)
  end
  if raw_type(s) == "string" and raw_type(pattern) == "string" and is_risky(s, pattern) then
    local kind = raw_type(repl)
    if kind == "string" or kind == "number" or kind == "table" or kind == "function" then
      return linear.gsub(s, pattern, repl, times)
    end
  end
  -- A byte takes as long as some instructions. With a limit, or an anchor, most of the text is not looked at.
  if times == nil and raw_type(s) == "string" and #s > GSUB_FREE_BYTES and raw_type(pattern) == "string"
    and raw_byte(pattern, 1) ~= 94 then
    K.spend(#s)
  end
  return raw_gsub(s, pattern, repl, times)
end

-- format string -> per argument: true = as text (%s), false = a float (%a %e %f %g), nil = C's own affair.
local format_plans, format_plan_count = {}, 0
local FORMAT_PLANS_MAX = 500

local function format_plan(format)
  local plan = format_plans[format]
  if not plan then
    plan = { n = 0 }
    for spec in raw_gmatch(format, "%%[-+ #0]*%d*%.?%d*(.?)") do
      if spec == "p" then
        raw_error("invalid conversion '%p' to 'format' (addresses differ from run to run)")
      elseif spec ~= "%" then
        plan.n = plan.n + 1
        if spec == "s" then
          plan[plan.n] = true
        elseif raw_find(spec, "^[aAeEfFgG]") then
          plan[plan.n] = false
        end
      end
    end
    if format_plan_count >= FORMAT_PLANS_MAX then
      format_plans, format_plan_count = {}, 0
    end
    format_plans[format], format_plan_count = plan, format_plan_count + 1
  end
  return plan
end

local NAN = 0.0 / 0.0
if raw_find(raw_tostring(NAN), "-", 1, true) then
  NAN = -NAN
end

function string.format(format, ...)
  format = text(format)
  if raw_type(format) ~= "string" then
    return raw_format(format, ...)
  end
  local plan, args, n = format_plan(format), nil, raw_select("#", ...)
  for i = 1, plan.n < n and plan.n or n do
    local as_text = plan[i]
    if as_text ~= nil then
      local v = raw_select(i, ...)
      local replaced
      if as_text then
        if raw_type(v) ~= "string" then
          replaced = tostring(v)
        end
      elseif v ~= v then
        replaced = NAN
      end
      if replaced ~= nil then
        args = args or { ... }
        args[i] = replaced
      end
    end
  end
  if args then
    return raw_format(format, unpack(args, 1, n))
  end
  return raw_format(format, ...)
end
