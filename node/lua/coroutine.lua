-- The `coroutine` library of units.
--
-- A library call that blocks yields the token K.BLOCK to the scheduler. Inside a coroutine made by user code that yield
-- first reaches the user's resume, which passes it on outwards and, once resumed, passes the answer inwards: the whole
-- task waits, the user's coroutine notices nothing.
--
-- Not responsible for: the tasks themselves and the instruction budget (the kernel; it is told of each new coroutine
-- by `K.arm`). Of a unit, read here: task.

local K = ...
local raw = K.raw

local raw_type, raw_error, ordinal, protected = raw.type, raw.error, K.ordinal, K.protected

local BLOCK = K.key("block")
K.BLOCK = BLOCK

local raw_create, raw_resume, raw_yield = raw.coroutine.create, raw.coroutine.resume, raw.coroutine.yield
local raw_status, raw_running, raw_close = raw.coroutine.status, raw.coroutine.running, raw.coroutine.close

local OWN, WAITING, NEW = 1, 2, 3
-- Coroutines made by user code -> NEW until first resumed, then OWN, or WAITING while a blocking call inside holds its task. Others (the tasks of
-- the scheduler) cannot be resumed, closed or yielded from by user code.
local made = raw.setmetatable({}, { __mode = "k" })

local coroutine = {}
K.libs.coroutine = coroutine

local function check_thread(co, name)
  if raw_type(co) ~= "thread" then
    raw_error("bad argument #1 to '" .. name .. "' (coroutine expected)")
  end
end

function coroutine.create(f)
  if raw_type(f) ~= "function" then
    raw_error("bad argument #1 to 'create' (function expected)")
  end
  local co = raw_create(f)
  made[co] = NEW
  ordinal(co)
  return co
end

local function settle(co, ok, first, ...)
  if ok then
    if first == BLOCK then
      made[co] = WAITING
      return settle(co, raw_resume(co, raw_yield(BLOCK, ...)))
    end
    made[co] = OWN
    return true, first, ...
  end
  made[co] = OWN
  protected(false, first)
  return false, K.blame_thread(co, first)
end

--- The coroutine of the user's that waits inside coroutine `co`, nil when that one waits itself.
function K.waiting_inside(co)
  local info = raw.debug.getinfo(co, 1, "f")
  if info and info.func == settle then
    local _, inner = raw.debug.getlocal(co, 1, 1)
    return inner
  end
  return nil
end

--- Whether user code made a coroutine, and may resume it now.
function K.may_resume(co)
  local state = made[co]
  return state == OWN or state == NEW
end

-- Why a coroutine cannot be resumed; nil when it can, and then it is under the budget.
local function refusal(co)
  local state = made[co]
  if state == OWN or state == NEW then
    if K.rearm and (state == NEW or K.current.every) then
      K.rearm(co)
    end
    return nil
  elseif state == WAITING then
    return "cannot resume non-suspended coroutine"
  end
  return "cannot resume a task of the scheduler"
end

function coroutine.resume(co, ...)
  check_thread(co, "resume")
  local no = refusal(co)
  if no then
    return false, no
  end
  return settle(co, raw_resume(co, ...))
end

local function unwrap(co, ok, ...)
  if ok then
    return ...
  end
  if raw_status(co) == "dead" then
    raw_close(co)
  end
  raw_error((...), 0)
end

function coroutine.wrap(f)
  local co = coroutine.create(f)
  local function wrapped(...)
    local no = refusal(co)
    if no then
      raw_error(no)
    end
    return unwrap(co, settle(co, raw_resume(co, ...)))
  end
  ordinal(wrapped)
  return wrapped
end

function coroutine.yield(...)
  if not made[raw_running()] then
    raw_error("attempt to yield from outside a coroutine")
  end
  return raw_yield(...)
end

function coroutine.status(co)
  check_thread(co, "status")
  if made[co] == WAITING then
    return "normal"
  end
  return raw_status(co)
end

--- The running coroutine and whether it is the unit's main task.
function coroutine.running()
  local co = raw_running()
  local task = K.current and K.current.task
  if task then
    return co, task.co == co and task.main == true
  end
  return co, not made[co]
end

function coroutine.isyieldable(co)
  co = co or raw_running()
  check_thread(co, "isyieldable")
  return made[co] ~= nil and raw.coroutine.isyieldable(co)
end

function coroutine.close(co)
  check_thread(co, "close")
  if made[co] ~= OWN and made[co] ~= NEW then
    raw_error("cannot close a " .. (made[co] and "normal" or "running") .. " coroutine")
  end
  if K.rearm then
    K.rearm(co)
  end
  return protected(raw_close(co))
end
