-- `funcs`, futures, `ctx` and the blocking part of `time`: everything that asks the world through an op
-- (contract sections 10, 12.1, 13.2).
--
-- An op is an order to the driver: number, kind, target, payload, options. The live driver carries it out at
-- once, the durable driver through the history; the code here cannot tell which.

local K = ...
local raw = K.raw

-- Ops --------------------------------------------------------------------------------------------------------

-- Ops leave the kernel as one flat list, five values each: one crossing for a whole activation.
local OPS_PER_STEP_MAX = 100000 -- they leave over Lua's stack, which takes a million values

local function push_op(unit, n, kind, target, payload, options)
  local ops, len = unit.ops, unit.ops_len
  if len >= OPS_PER_STEP_MAX * 5 and kind ~= "end" then
    K.doom(unit, "asked for more than " .. OPS_PER_STEP_MAX .. " things in one step without waiting for any")
  end
  ops[len + 1], ops[len + 2], ops[len + 3] = n, kind, target
  ops[len + 4], ops[len + 5] = payload or false, options or false
  unit.ops_len = len + 5
end

--- Order something that has an outcome; `on_outcome(ok, value_or_error)` is called once with it. Returns the op's number.
function K.op(kind, target, payload, options, on_outcome)
  local unit = K.current
  if unit.loading then
    K.raise("this call reaches outside, and a file's top level may not; call it from a function")
  end
  local n = unit.next_n
  unit.next_n = n + 1
  unit.pending[n] = on_outcome
  unit.pending_count = unit.pending_count + 1
  push_op(unit, n, kind, target, payload, options)
  return n
end

--- Order something that has no outcome.
function K.tell(kind, target, payload, options)
  push_op(K.current, 0, kind, target, payload, options)
end

--- Order and wait: value, or nil and an Error.
function K.op_wait(kind, target, payload, options)
  local task = K.current.task
  K.op(kind, target, payload, options, function(ok, value)
    if ok then
      K.wake(task, value, nil)
    else
      K.wake(task, nil, value)
    end
  end)
  return K.park()
end

--- Ask a module of the node (`node.modules`) and wait: value, or nil and an Error. what: "<module>.<verb>".
function K.ask(what, ...)
  local args, err = K.encode_list(raw.select("#", ...), ...)
  if not args then
    return K.invalid("arguments cannot be sent: " .. err)
  end
  return K.op_wait("ask", what, "\xC1" .. args)
end

--- Forget an op that nobody waits for any more; a late outcome is ignored.
function K.forget(n)
  local unit = K.current
  if unit.pending[n] ~= nil then
    unit.pending[n] = nil
    unit.pending_count = unit.pending_count - 1
    return true
  end
  return false
end

-- Context values ---------------------------------------------------------------------------------------------

local ctx = {}

-- Context values are read only: code gets copies, so that calls made later pass on what the unit was given.
local function copied(value)
  if K.type(value) ~= "table" then
    return value
  end
  local copy = {}
  for k, v in raw.next, value do
    copy[k] = copied(v)
  end
  return copy
end

-- Keys that begin with @ are the platform's: code does not see them, cannot set them, and does not hand them on.
local function is_reserved(key)
  return raw.type(key) == "string" and raw.string.byte(key, 1) == 64
end

--- A context value that the platform gave this unit, nil if it has not.
function K.reserved(key)
  return K.current.context[key]
end

local function own_context(unit)
  local copy = {}
  for k, v in raw.next, unit.context do
    if not is_reserved(k) then
      copy[k] = v
    end
  end
  return copy
end

function ctx.get(key)
  if raw.type(key) ~= "string" or key == "" then
    return K.invalid("key must be a non-empty text")
  end
  local value = K.current.context[key]
  if value == nil or is_reserved(key) then
    return nil, K.new_error("NotFound", "key not found: " .. key, false)
  end
  return copied(value), nil
end

function ctx.all()
  return copied(own_context(K.current))
end

K.modules.ctx = ctx

--- Merge two option or context tables into a new one; the second wins. Keys must be texts, else this raises.
function K.merge(base, extra, what)
  if K.type(extra) ~= "table" then
    raw.error("bad argument #1 to '" .. what .. "' (table expected, got " .. K.type(extra) .. ")", 3)
  end
  local merged = {}
  for k, v in raw.next, base do
    merged[k] = v
  end
  for k, v in raw.next, extra do
    if raw.type(k) ~= "string" then
      raw.error("bad argument #1 to '" .. what .. "' (keys must be texts, got " .. K.type(k) .. ")", 3)
    elseif what == "with_context" and is_reserved(k) then
      raw.error("bad argument #1 to 'with_context' (keys that begin with @ are reserved, got " .. k .. ")", 3)
    end
    merged[k] = v
  end
  return merged
end

--- The request body of a call or start: arguments and context values. Returns bytes, or nil and an Error.
function K.encode_request(context, n, ...)
  local args, err = K.encode_list(n, ...)
  if not args then
    return nil, K.new_error("Invalid", "arguments cannot be sent: " .. err, false)
  end
  local unit = K.current
  local ctx_bytes
  if context == nil then
    ctx_bytes = unit.context_bytes
    if ctx_bytes == nil then
      local own = own_context(unit)
      ctx_bytes = raw.next(own) == nil and "\xC0" or K.encode(own)
      unit.context_bytes = ctx_bytes
    end
  else
    ctx_bytes, err = K.encode(K.merge(own_context(unit), context, "with_context"))
    if not ctx_bytes then
      return nil, K.new_error("Invalid", "context cannot be sent: " .. err, false)
    end
  end
  return "\xC1\x92" .. args .. ctx_bytes
end

--- Encode an options table for an op; nil when there are none. Raises for what cannot be sent.
function K.encode_options(options)
  if options == nil or raw.next(options) == nil then
    return nil
  end
  local bytes, err = K.encode(options)
  if not bytes then
    raw.error("options cannot be sent: " .. err, 3)
  end
  return bytes
end

-- Futures ----------------------------------------------------------------------------------------------------

local N, CHAN, DONE, RESULT, FAILED, CANCELED = K.key("n"), K.key("channel"), K.key("done"), K.key("result"),
  K.key("failed"), K.key("canceled")
local WAITS, WAITERS = K.key("waits"), K.key("waiters") -- whether a cancel waits for the end; the tasks that do

local future_methods = {}
local new_future = K.class("Future", future_methods, { __tostring = function() return "future" end })

function future_methods:response() return self[CHAN] end
future_methods.channel = future_methods.response
function future_methods:is_complete() return self[DONE] end
function future_methods:is_canceled() return self[CANCELED] end

function future_methods:result()
  if not self[DONE] then
    return nil, nil
  elseif self[FAILED] then
    return nil, self[FAILED]
  end
  return self[RESULT], nil
end

function future_methods:error()
  if self[FAILED] then
    return self[FAILED], true
  end
  return nil, false
end

local function settle_canceled(future)
  future[DONE], future[CANCELED] = true, true
  future[FAILED] = K.new_error("Canceled", "canceled", false)
  K.channel_close(future[CHAN])
end

local function settle(future, ok, value)
  if future[DONE] then
    return
  elseif future[WAITERS] then
    -- It was asked to stop. Whatever it came to, the caller does not want it any more.
    settle_canceled(future)
    for _, task in raw.ipairs(future[WAITERS]) do
      K.wake(task)
    end
    return
  end
  future[DONE] = true
  if ok then
    future[RESULT] = K.new_payload(value)
    K.channel_offer(future[CHAN], future[RESULT])
  else
    future[FAILED] = value
    K.channel_offer(future[CHAN], value)
  end
  K.channel_close(future[CHAN])
end

-- Ask the call to stop and wait for its end.
local function cancel_and_wait(future)
  if not future[WAITERS] then
    future[WAITERS] = {}
    K.tell("cancel_op", future[N], nil, K.encode({ wait = true }))
  end
  local task = K.current.task
  future[WAITERS][#future[WAITERS] + 1] = task
  task.on = future
  K.park()
end

function future_methods:cancel()
  if self[DONE] then
    return true, nil
  elseif self[WAITS] then
    cancel_and_wait(self)
    return true, nil
  end
  settle_canceled(self)
  if self[N] and K.forget(self[N]) then
    K.tell("cancel_op", self[N])
  end
  return true, nil
end

-- Calls ------------------------------------------------------------------------------------------------------

local function check_id(id)
  if raw.type(id) ~= "string" or id == "" then
    return K.new_error("Invalid", "function ID required", false)
  end
  local colon = raw.string.find(id, ":", 1, true)
  if not colon or colon == 1 then
    return K.new_error("Invalid", "namespace required in function ID", false)
  elseif colon == #id then
    return K.new_error("Invalid", "name required in function ID", false)
  end
  return nil
end

local function call(context, options, id, ...)
  local err = check_id(id)
  if err then
    return nil, err
  end
  local request, failed = K.encode_request(context, raw.select("#", ...), ...)
  if not request then
    return nil, failed
  end
  return K.op_wait("call", id, request, options)
end

local function async(context, options, waits, id, ...)
  local err = check_id(id)
  if err then
    return nil, err
  end
  local future = new_future({
    [CHAN] = K.new_channel(1), [DONE] = false, [CANCELED] = false, [WAITS] = waits and K.current.deterministic,
  })
  local request, failed = K.encode_request(context, raw.select("#", ...), ...)
  if not request then
    settle(future, false, failed)
  else
    future[N] = K.op("call", id, request, options, function(ok, value) settle(future, ok, value) end)
  end
  return future, nil
end

local CONTEXT, OPTIONS = K.key("context"), K.key("options")
local executor_methods = {}
local new_executor = K.class("Executor", executor_methods, { __tostring = function() return "executor" end })

function executor_methods:with_context(values)
  return new_executor({
    [CONTEXT] = K.merge(self[CONTEXT] or {}, values, "with_context"), [OPTIONS] = self[OPTIONS], [WAITS] = self[WAITS],
  })
end

-- Of the options the driver reads all but this one, which is about what the caller does.
local function waits_for_cancellation(options)
  for _, prefix in raw.ipairs({ "", "activity.", "temporal.activity." }) do
    if options[prefix .. "wait_for_cancellation"] == true then
      return true
    end
  end
  return false
end

-- Options replace the earlier ones (on a Spawner they merge).
function executor_methods:with_options(values)
  local options = K.merge({}, values, "with_options")
  return new_executor({
    [CONTEXT] = self[CONTEXT], [OPTIONS] = K.encode_options(options), [WAITS] = waits_for_cancellation(options),
  })
end

function executor_methods:with_actor(_) return self end
function executor_methods:with_scope(_) return self end
function executor_methods:call(id, ...) return call(self[CONTEXT], self[OPTIONS], id, ...) end
function executor_methods:async(id, ...) return async(self[CONTEXT], self[OPTIONS], self[WAITS], id, ...) end

K.modules.funcs = {
  call = function(id, ...) return call(nil, nil, id, ...) end,
  async = function(id, ...) return async(nil, nil, false, id, ...) end,
  new = function() return new_executor({}) end,
}

-- Time that passes -------------------------------------------------------------------------------------------

local time = K.modules.time

function time.sleep(duration)
  local ns, err = K.duration_ns(duration, "time.sleep")
  if not ns then
    return nil, err
  end
  if ns > 0 then
    K.op_wait("timer", ns)
  end
end

local function positive(duration, what)
  local ns = K.duration_ns(duration, what)
  if not ns or ns <= 0 then
    return K.invalid(what .. ": duration must be > 0")
  end
  return ns
end

function time.after(duration)
  local ns, err = positive(duration, "time.after")
  if not ns then
    return nil, err
  end
  local ch = K.new_channel(1)
  K.op("timer", ns, nil, nil, function()
    K.channel_offer(ch, K.new_time(K.current.now))
    K.channel_close(ch)
  end)
  return ch
end

local timer_methods = {}
local new_timer = K.class("Timer", timer_methods)

local function start_timer(timer, ns)
  timer[N] = K.op("timer", ns, nil, nil, function()
    timer[N] = nil
    K.channel_offer(timer[CHAN], K.new_time(K.current.now))
  end)
end

local function stop_timer(timer)
  local n = timer[N]
  timer[N] = nil
  if n and K.forget(n) then
    K.tell("cancel_op", n)
    return true
  end
  return false
end

function time.timer(duration)
  local ns, err = positive(duration, "time.timer")
  if not ns then
    return nil, err
  end
  local timer = new_timer({ [CHAN] = K.new_channel(1) })
  start_timer(timer, ns)
  return timer
end

function timer_methods:response() return self[CHAN] end
timer_methods.channel = timer_methods.response

function timer_methods:stop()
  local was_running = stop_timer(self)
  K.channel_close(self[CHAN])
  return was_running
end

function timer_methods:reset(duration)
  local ns = K.duration_ns(duration, "timer:reset")
  if not ns or ns <= 0 then
    K.raise("timer:reset: duration must be > 0")
  end
  local was_running = stop_timer(self)
  start_timer(self, ns)
  return was_running
end

local PERIOD, DUE = K.key("period"), K.key("due")
local TICKER_BUFFER = 16 -- surplus ticks are dropped
local ticker_methods = {}
local new_ticker = K.class("Ticker", ticker_methods)

local function next_tick(ticker)
  local now = K.now()
  ticker[DUE] = ticker[DUE] + ticker[PERIOD]
  if ticker[DUE] <= now then
    -- Ticks that were missed are dropped, the phase is kept.
    ticker[DUE] = ticker[DUE] + ((now - ticker[DUE]) // ticker[PERIOD] + 1) * ticker[PERIOD]
  end
  ticker[N] = K.op("timer", ticker[DUE] - now, nil, nil, function()
    K.channel_offer(ticker[CHAN], K.new_time(K.current.now))
    next_tick(ticker)
  end)
end

function time.ticker(duration)
  local ns, err = positive(duration, "time.ticker")
  if not ns then
    return nil, err
  end
  local ticker = new_ticker({ [CHAN] = K.new_channel(TICKER_BUFFER), [PERIOD] = ns, [DUE] = K.now() })
  next_tick(ticker)
  return ticker
end

function ticker_methods:response() return self[CHAN] end
ticker_methods.channel = ticker_methods.response

function ticker_methods:stop()
  stop_timer(self)
  K.channel_close(self[CHAN])
  return true
end

-- For those who look (inspection.lua) -------------------------------------------------------------------------

--- The channel of a future, timer or ticker, and the number of the op that fills it; nil for every other object.
function K.channel_of(object)
  return raw.rawget(object, CHAN), raw.rawget(object, N)
end

--- What there is to know about a future: whether it has ended, the value (a Payload) or the Error it ended with.
function K.future_facts(future)
  return future[DONE], future[RESULT], future[FAILED]
end
