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

local string = {}
K.libs.string = string

local raw_byte, raw_len, raw_lower = raw.string.byte, raw.string.len, raw.string.lower
local raw_reverse, raw_upper = raw.string.reverse, raw.string.upper

local VALUES_FREE = 256

function string.byte(s, i, j)
  if raw_type(s) ~= "string" then s = text(s) end
  if j and raw_type(s) == "string" and #s > VALUES_FREE then
    K.spend(#s) -- C makes that many values at most
  end
  return raw_byte(s, i, j)
end

local raw_char, raw_pack, raw_packsize = raw.string.char, raw.string.pack, raw.string.packsize

function string.char(...)
  local n = raw_select("#", ...)
  if n > VALUES_FREE then
    K.spend(n)
  end
  return raw_char(...)
end

-- C reads a format from its beginning each time, and makes what `c` asks for whatever fits into memory.
local function check_packing(format)
  if raw_type(format) ~= "string" then
    return
  elseif #format > VALUES_FREE then
    K.spend(#format * 4)
  end
  for digits in raw_gmatch(format, "c(%d%d%d%d+)") do
    if raw_tonumber(digits) > K.limits.string_bytes_max then
      raw_error("resulting string too large (limit " .. raw_format("%d", K.limits.string_bytes_max) .. " bytes)")
    end
  end
end

function string.pack(format, ...)
  format = text(format)
  check_packing(format)
  return (K.notice(raw_pack(format, ...)))
end

function string.packsize(format)
  format = text(format)
  check_packing(format)
  return raw_packsize(format)
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
  if raw_type(s) == "string" and #s > COPY_FREE_BYTES then
    local part = raw_sub(s, i, j)
    K.spend(#part // 64)
    return part
  end
  return raw_sub(s, i, j)
end

function string.upper(s)
  if raw_type(s) ~= "string" then s = text(s) end
  if raw_type(s) == "string" then spend_copy(#s) end
  return raw_upper(s)
end

local raw_unpack = raw.string.unpack
function string.unpack(format, s, init)
  format = text(format)
  check_packing(format)
  return raw_unpack(format, text(s), init)
end

-- Arithmetic on texts: C reads one from its beginning, however long it is, in one instruction.
do
  local real = raw.debug.getmetatable("")
  local NUMERAL_BYTES_MAX <const> = 200 -- Lua's own limit for what it reads as a number with a fraction
  for _, event in raw.ipairs({ "__add", "__sub", "__mul", "__mod", "__pow", "__div", "__idiv", "__unm" }) do
    local raw_operation = real[event]
    real[event] = function(a, b)
      if raw_type(a) == "string" and #a > NUMERAL_BYTES_MAX or raw_type(b) == "string" and #b > NUMERAL_BYTES_MAX then
        raw_error("attempt to perform arithmetic on a string value")
      end
      return raw_operation(a, b)
    end
  end
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
  return (K.notice(raw_rep(s, n, sep)))
end

local GSUB_FREE_BYTES = 64
local PLAIN_FREE_BYTES = 10000
local is_risky, linear, plain_find = K.is_risky, K.linear, K.plain_find
if not is_risky then
  raw_error("load patterns.lua before text.lua", 0)
end

function string.find(s, pattern, init, plain)
  if raw_type(s) ~= "string" then s = text(s) end
  if raw_type(pattern) ~= "string" then pattern = text(pattern) end
  if not plain and raw_type(s) == "string" and raw_type(pattern) == "string" and is_risky(s, pattern) then
    return linear.find(s, pattern, init)
  end
  if raw_type(s) == "string" and raw_type(pattern) == "string" and #s > PLAIN_FREE_BYTES and #pattern > 1 then
    return plain_find(s, pattern, init, plain)
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

-- What stands for each match, but no more of it than a text may hold: C would go on until no memory is left.
local function bounded(s, repl)
  local kind = raw_type(repl)
  if kind == "string" then
    local _, whole = raw_gsub(repl, "%%", "")
    if (#s + 1.0) * (#repl + whole) + (#s + 0.0) * whole <= K.limits.string_bytes_max then
      return repl
    end
  elseif kind ~= "table" or #s <= GSUB_FREE_BYTES then
    return repl
  end
  local made = 0
  local function keep(value)
    if raw_type(value) == "string" then
      made = made + #value
      check_bytes(made)
    end
    return value
  end
  if kind == "table" then
    return function(key) return keep(repl[key]) end
  elseif not raw_find(repl, "%", 1, true) then
    return function() return keep(repl) end
  end
  raw_error("replacement too large for a text of " .. raw_format("%d", #s) .. " bytes: use a function")
end

function string.gsub(s, pattern, repl, times)
  s, pattern = text(s), text(pattern)
  if raw_type(repl) == "table" then
    repl = text(repl)
  end
  if raw_type(s) == "string" and raw_type(pattern) == "string" and is_risky(s, pattern) then
    local kind = raw_type(repl)
    if kind == "string" or kind == "number" or kind == "table" or kind == "function" then
      return K.notice(linear.gsub(s, pattern, kind == "function" and repl or bounded(s, repl), times))
    end
  end
  -- A byte takes as long as some instructions. With a limit, or an anchor, most of the text is not looked at.
  if times == nil and raw_type(s) == "string" and #s > GSUB_FREE_BYTES and raw_type(pattern) == "string"
    and raw_byte(pattern, 1) ~= 94 then
    K.spend(#s)
  end
  if raw_type(s) == "string" and raw_type(repl) ~= "function" then
    repl = bounded(s, repl)
  end
  return K.notice(raw_gsub(s, pattern, repl, times))
end

-- format string -> per argument: true = as text (%s), false = a float (%a %e %f %g), nil = C's own affair.
local format_plans, format_plan_count = {}, 0
local FORMAT_PLANS_MAX = 500
local FORMAT_KEPT_BYTES_MAX = 256 -- longer ones are not remembered: what is remembered is everybody's
local FORMAT_FREE_BYTES = 4096
local FORMAT_COST = 20 -- instructions; a float with all its digits takes C a microsecond

local function format_plan(format)
  local plan = format_plans[format]
  if not plan then
    plan = { n = 0 }
    for spec in raw_gmatch(format, "%%[-+ #0]*%d*%.?%d*(.?)") do
      if spec == "p" then
        raw_error("invalid conversion '%p' to 'format' (addresses differ from run to run)")
      elseif spec ~= "%" then
        plan.n = plan.n + 1
        if spec == "q" then
          plan.quotes = true
        elseif spec == "s" then
          plan[plan.n] = true
        elseif raw_find(spec, "^[aAeEfFgG]") then
          plan[plan.n] = false
        end
      end
    end
    if format_plan_count >= FORMAT_PLANS_MAX then
      format_plans, format_plan_count = {}, 0
    end
    if #format <= FORMAT_KEPT_BYTES_MAX then
      format_plans[format], format_plan_count = plan, format_plan_count + 1
    end
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
  local bytes = #format
  for i = 1, n do
    local v = raw_select(i, ...)
    if raw_type(v) == "string" then
      bytes = bytes + #v
    end
  end
  if bytes > FORMAT_FREE_BYTES then
    check_bytes(bytes * 4) -- %q makes up to four bytes of one
    K.spend(plan.quotes and bytes * 4 or bytes // 8)
  end
  K.spend(FORMAT_COST * plan.n)
  if args then
    return (K.notice(raw_format(format, unpack(args, 1, n))))
  end
  return (K.notice(raw_format(format, ...)))
end
