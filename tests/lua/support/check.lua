-- `check`: what behaviours use to say what has to be. Every function raises with both sides in the text, at the line of
-- the behaviour that called it, and gives back what it looked at where that is of use.
--
--   check.equal(got, wanted[, what])          deep; an integer equals the float of its value
--   check.is_true(v[, what])                  exactly true; is_false, is_nil likewise
--   check.type_is(v, "userdata")              as `type` says; "integer" and "float" are told apart
--   check.matches(text_or_error, pattern)     Lua pattern
--   check.error_is(err, kind, pattern[, retryable])    an Error of that kind; retryable true, false or "unsaid"
--   check.fails(kind, pattern, fn(...))       the call gave nil (or false) and such an Error; gives back the Error
--   check.raises(fn, pattern, ...)            fn(...) raises; gives back what it raised
--   check.receive(ch[, dur])                  one value from a channel, at most 20 s; gives value, ok
--   check.closed(ch[, dur])                   the channel is closed and empty
--   check.nothing(ch[, dur])                  nothing comes for so long, 50 ms if not said
--   check.eventually(fn[, what])              fn() comes true within 20 s; gives back what it gave
--   check.unique(text)                        the text with something new behind it, for names and workflow ids
--   check.fail(text)                          it is wrong
local time = require("time")
local uuid = require("uuid")

local WAIT = "20s"
local check = {}

local function shown(v, seen)
  local kind = type(v)
  if kind == "string" then
    return string.format("%q", v):gsub("\\\n", "\\n")
  elseif kind == "userdata" then
    local ok, error_kind = pcall(function() return v:kind() end)
    return ok and "Error(" .. tostring(error_kind) .. ": " .. tostring(v) .. ")" or tostring(v)
  elseif kind ~= "table" then
    return tostring(v)
  end
  seen = seen or {}
  if seen[v] then return "{...}" end
  seen[v] = true
  local parts, keys = {}, {}
  for key in pairs(v) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for i, key in ipairs(keys) do
    parts[i] = (key == i and "" or (type(key) == "string" and key or "[" .. shown(key, seen) .. "]") .. " = ")
      .. shown(v[key], seen)
  end
  seen[v] = nil
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b or (a ~= a and b ~= b)
  end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

-- Level 3: the line of the behaviour, as every function here calls this one itself.
local function fail(text, what)
  error((what and what .. ": " or "") .. text, 3)
end

function check.fail(text)
  fail(text)
end

--- How a value is shown in a text.
check.shown = shown

function check.equal(got, wanted, what)
  if not same(got, wanted) then
    fail("got " .. shown(got) .. ", wanted " .. shown(wanted), what)
  end
  return got
end

function check.is_true(v, what)
  if v ~= true then fail("got " .. shown(v) .. ", wanted true", what) end
end

function check.is_false(v, what)
  if v ~= false then fail("got " .. shown(v) .. ", wanted false", what) end
end

function check.is_nil(v, what)
  if v ~= nil then fail("got " .. shown(v) .. ", wanted nil", what) end
end

function check.type_is(v, wanted, what)
  local got = type(v)
  if got == "number" and wanted ~= "number" then got = math.type(v) end
  if got ~= wanted then fail("got " .. shown(v) .. ", of type " .. got .. ", wanted " .. wanted, what) end
  return v
end

local function text_of(v)
  return type(v) == "string" and v or type(v) == "userdata" and tostring(v) or nil
end

function check.matches(v, pattern, what)
  local text = text_of(v)
  if not text or not text:find(pattern) then
    fail("got " .. shown(v) .. ", wanted what fits " .. shown(pattern), what)
  end
  return v
end

-- What is wrong with a value that should be such an Error; nil if nothing is.
local function error_fault(err, kind, pattern, retryable)
  if type(err) ~= "userdata" or not errors.is(err, kind) then
    return "got " .. shown(err) .. ", wanted an Error of kind " .. shown(kind)
  elseif pattern and not err:message():find(pattern) then
    return "got " .. shown(err) .. ", wanted a message that fits " .. shown(pattern)
  elseif retryable ~= nil then
    local got = err:retryable()
    if got == nil then got = "unsaid" end
    if got ~= retryable then
      return shown(err) .. " has retryable " .. tostring(got) .. ", wanted " .. tostring(retryable)
    end
  end
end

function check.error_is(err, kind, pattern, retryable)
  local fault = error_fault(err, kind, pattern, retryable)
  if fault then fail(fault) end
  return err
end

function check.fails(kind, pattern, value, err)
  if value then fail("got " .. shown(value) .. ", wanted nil and an Error of kind " .. shown(kind)) end
  local fault = error_fault(err, kind, pattern)
  if fault then fail(fault) end
  return err
end

function check.raises(fn, pattern, ...)
  local results = table.pack(pcall(fn, ...))
  if results[1] then
    fail("it raised nothing but gave " .. shown({ table.unpack(results, 2, results.n) }))
  end
  local text = text_of(results[2])
  if pattern and not (text and text:find(pattern)) then
    fail("it raised " .. shown(results[2]) .. ", wanted what fits " .. shown(pattern))
  end
  return results[2]
end

-- Receive with a limit: value, ok, in_time.
local function within(ch, dur)
  if type(ch) ~= "userdata" then return nil, nil, false, "it is no channel but " .. shown(ch) end
  local limit = time.after(dur)
  local r = channel.select{ ch:case_receive(), limit:case_receive() }
  if r.channel == limit then return nil, nil, false, "nothing came within " .. dur end
  return r.value, r.ok, true
end

function check.receive(ch, dur)
  local value, ok, came, why = within(ch, dur or WAIT)
  if not came then fail(why) end
  if not ok then fail("the channel is closed") end
  return value, ok
end

function check.closed(ch, dur)
  local value, ok, came, why = within(ch, dur or WAIT)
  if not came then fail(why) end
  if ok then fail("got " .. shown(value) .. ", wanted a closed channel") end
end

function check.nothing(ch, dur)
  local value, ok, came = within(ch, dur or "50ms")
  if came then fail(ok and "got " .. shown(value) .. ", wanted nothing" or "the channel is closed") end
end

function check.eventually(fn, what)
  for _ = 1, 2000 do
    local got = fn()
    if got then return got end
    time.sleep("10ms")
  end
  fail("it has not come true within 20 s", what)
end

function check.unique(text)
  return text .. "-" .. uuid.v4()
end

return check
