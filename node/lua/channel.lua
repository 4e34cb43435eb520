-- Tasks and channels: the scheduler's vocabulary (contract section 6).
--
-- A unit runs tasks (coroutines that the scheduler owns) one at a time, first ready first. A task waits by
-- parking: it yields K.BLOCK and is put back into the ready queue by whoever has what it waits for. Values are
-- handed over in the task record, never through the yield, so coroutines that user code made by itself may lie
-- between the task and the place that waits (coroutine.lua passes K.BLOCK through them).
--
-- Nothing here is random and nothing depends on addresses: same calls in the same order, same schedule.

local K = ...
local raw = K.raw
local yield, co_create = raw.coroutine.yield, raw.coroutine.create
local unpack, setmetatable = raw.table.unpack, raw.setmetatable

-- Tasks ------------------------------------------------------------------------------------------------------

--- Put a task into the ready queue with the two values that its wait returns.
function K.wake(task, a, b)
  task.a, task.b, task.on = a, b, nil
  local unit = task.unit
  local tail = unit.ready_tail + 1
  unit.ready[tail] = task -- before the count: there may be no memory for it
  unit.ready_tail = tail
end

--- Wait until somebody wakes this task; returns the two values given to K.wake. What it waits for stands in `task.on`, for
--- those who look (inspection.lua), unless it is the outcome of an op.
function K.park()
  local task = K.current.task
  if task == nil then
    K.raise("this call waits, and a file's top level may not wait; call it from a function")
  end
  yield(K.BLOCK)
  local a, b = task.a, task.b
  task.a, task.b = nil, nil
  return a, b
end

--- Start fn() as a new task of the unit; it runs after the ones that are ready now.
function K.spawn_task(unit, fn)
  local co = co_create(fn)
  K.arm(co)
  local id = unit.next_task
  unit.next_task = id + 1
  local task = { co = co, unit = unit, id = id }
  unit.tasks[id] = task
  K.wake(task)
  return task
end

-- Channels ---------------------------------------------------------------------------------------------------

local SIZE, CLOSED = K.key("size"), K.key("closed")
local BUF, FIRST, LAST = K.key("buffer"), K.key("first"), K.key("last")
local RECEIVERS, SENDERS, READ = K.key("receivers"), K.key("senders"), K.key("read")
local CH, OP, VALUE = K.key("channel"), K.key("op"), K.key("value")

local methods, case_methods = {}, {}
local new_object = K.class("channel", methods, { __tostring = function() return "channel" end })
local new_case = K.class("channel.case", case_methods)

--- A channel. size 0 hands over directly, n buffers n values, math.huge never blocks a sender. read(value), if given, is
--- what a receiver sees of a value.
function K.new_channel(size, read)
  return new_object({ [SIZE] = size, [CLOSED] = false, [BUF] = {}, [FIRST] = 1, [LAST] = 0, [READ] = read })
end

local function as_read(ch, value)
  local read = ch[READ]
  if read then
    return read(value)
  end
  return value
end

-- Waiting queues are plain lists with a head; a waiter of a select that was answered elsewhere is skipped.
local function push(ch, key, waiter)
  local q = ch[key]
  if q == nil then
    q = { first = 1, last = 0 }
    ch[key] = q
  end
  -- A channel that many selects pass by would otherwise collect their answered waiters for ever.
  while q.first <= q.last and q[q.first].group and q[q.first].group.done do
    q[q.first] = nil
    q.first = q.first + 1
  end
  q.last = q.last + 1
  q[q.last] = waiter
end

-- The task that is about to wait. A file's top level has none.
local function waiting_task()
  local task = K.current.task
  if task == nil then
    raw.error("this call waits, and a file's top level may not wait; call it from a function", 3)
  end
  return task
end

local function pop(ch, key)
  local q = ch[key]
  if q == nil then
    return nil
  end
  while q.first <= q.last do
    local waiter = q[q.first]
    q[q.first] = nil
    q.first = q.first + 1
    local group = waiter.group
    if group == nil then
      return waiter
    elseif not group.done then
      group.done = true
      return waiter
    end
  end
  ch[key] = nil
  return nil
end

local function has_waiter(ch, key)
  local q = ch[key]
  if q == nil then
    return false
  end
  while q.first <= q.last do
    local waiter = q[q.first]
    if waiter.group == nil or not waiter.group.done then
      return true
    end
    q[q.first] = nil
    q.first = q.first + 1
  end
  ch[key] = nil
  return false
end

local function answer_receiver(waiter, value, ok)
  if waiter.group then
    K.wake(waiter.task, { channel = waiter.ch, value = value, ok = ok })
  else
    K.wake(waiter.task, value, ok)
  end
end

local function answer_sender(waiter)
  if waiter.group then
    K.wake(waiter.task, { channel = waiter.ch, ok = true })
  else
    K.wake(waiter.task, true, nil)
  end
end

-- Hand a value over without waiting. True when it was taken or buffered.
local function try_send(ch, value)
  local waiter = pop(ch, RECEIVERS)
  if waiter then
    answer_receiver(waiter, as_read(ch, value), true)
    return true
  end
  if ch[LAST] - ch[FIRST] + 1 < ch[SIZE] then
    local last = ch[LAST] + 1
    ch[LAST] = last
    ch[BUF][last] = value
    return true
  end
  return false
end

-- Take a value without waiting: ready, value, ok.
local function try_receive(ch)
  local first = ch[FIRST]
  if first <= ch[LAST] then
    local buf = ch[BUF]
    local value = buf[first]
    buf[first] = nil
    ch[FIRST] = first + 1
    local waiter = pop(ch, SENDERS)
    if waiter then
      local last = ch[LAST] + 1
      ch[LAST] = last
      buf[last] = waiter.value
      answer_sender(waiter)
    end
    return true, as_read(ch, value), true
  end
  local waiter = pop(ch, SENDERS)
  if waiter then
    answer_sender(waiter)
    return true, as_read(ch, waiter.value), true
  end
  if ch[CLOSED] then
    return true, nil, false
  end
  return false
end

--- Deliver from the runtime's side: never waits, drops when the buffer is full or the channel closed. True when it was kept.
function K.channel_offer(ch, value)
  if ch[CLOSED] then
    return false
  end
  return try_send(ch, value)
end

--- Close from the runtime's side; closing twice is fine.
function K.channel_close(ch)
  if ch[CLOSED] then
    return
  end
  ch[CLOSED] = true
  local waiter = pop(ch, RECEIVERS)
  while waiter do
    answer_receiver(waiter, nil, false)
    waiter = pop(ch, RECEIVERS)
  end
  waiter = pop(ch, SENDERS)
  while waiter do
    if waiter.group then
      -- A send case on a closed channel never becomes ready: the select goes on waiting for its other cases.
      waiter.group.done = false
    else
      K.wake(waiter.task, nil, K.new_error("Internal", "channel closed while sending", false))
    end
    waiter = pop(ch, SENDERS)
  end
end

--- Whether a channel is closed.
function K.channel_closed(ch)
  return ch[CLOSED]
end

--- How many values wait in a channel's buffer.
function K.channel_length(ch)
  return ch[LAST] - ch[FIRST] + 1
end

--- The values that wait in a channel's buffer, oldest first, taken out.
function K.channel_drain(ch)
  local values, n = {}, 0
  for i = ch[FIRST], ch[LAST] do
    n = n + 1
    values[n] = ch[BUF][i]
  end
  ch[BUF], ch[FIRST], ch[LAST] = {}, 1, 0
  return values, n
end

local function check_channel(v, what)
  if K.class_of(v) ~= "channel" then
    raw.error("bad argument #1 to '" .. what .. "' (channel expected, got " .. K.type(v) .. ")", 3)
  end
end

function methods:send(value)
  check_channel(self, "send")
  if self[CLOSED] then
    K.raise("send on closed channel")
  end
  if try_send(self, value) then
    return true
  end
  local waiter = { task = waiting_task(), value = value, ch = self, sends = true }
  push(self, SENDERS, waiter)
  waiter.task.on = waiter
  return K.park()
end

function methods:receive()
  check_channel(self, "receive")
  local ready, value, ok = try_receive(self)
  if ready then
    return value, ok
  end
  local waiter = { task = waiting_task(), ch = self }
  push(self, RECEIVERS, waiter)
  waiter.task.on = waiter
  return K.park()
end

function methods:close()
  check_channel(self, "close")
  K.channel_close(self)
end

function methods:case_send(value)
  check_channel(self, "case_send")
  return new_case({ [CH] = self, [OP] = "send", [VALUE] = value })
end

function methods:case_receive()
  check_channel(self, "case_receive")
  return new_case({ [CH] = self, [OP] = "receive" })
end

local M = {}

function M.new(size)
  if size == nil then
    size = 0
  elseif raw.math.type(size) ~= "integer" or size < 0 then
    K.raise("bad argument #1 to 'channel.new' (a size of 0 or more expected)")
  end
  return K.new_channel(size)
end

function M.select(cases, default)
  if raw.type(cases) ~= "table" or K.class_of(cases) then
    K.raise("bad argument #1 to 'select' (a list of cases expected, got " .. K.type(cases) .. ")")
  end
  local waiting = 0
  for i = 1, #cases do
    local case = cases[i]
    if K.class_of(case) == "channel.case" then
      local ch = case[CH]
      if case[OP] == "receive" then
        local ready, value, ok = try_receive(ch)
        if ready then
          return { channel = ch, value = value, ok = ok }
        end
        waiting = waiting + 1
      elseif not ch[CLOSED] then
        if has_waiter(ch, RECEIVERS) or ch[LAST] - ch[FIRST] + 1 < ch[SIZE] then
          try_send(ch, case[VALUE])
          return { channel = ch, ok = true }
        end
        waiting = waiting + 1
      end
    end
  end
  if default == true or cases.default == true then
    return { default = true, ok = true }
  end
  local group, task = { done = false, cases = cases }, waiting_task()
  task.on = group
  for i = 1, #cases do
    local case = cases[i]
    if K.class_of(case) == "channel.case" then
      local ch = case[CH]
      local waiter = { task = task, group = group, ch = ch, value = case[VALUE] }
      if case[OP] == "receive" then
        push(ch, RECEIVERS, waiter)
      elseif not ch[CLOSED] then
        push(ch, SENDERS, waiter)
      end
    end
  end
  return (K.park())
end

K.modules.channel = M

--- What there is to know about a channel: how many values it holds, how many it may hold, and whether it is closed.
function K.channel_facts(ch)
  return ch[LAST] - ch[FIRST] + 1, ch[SIZE], ch[CLOSED]
end

--- The values that wait in a channel's buffer: a list of which first to last are filled. Not to be changed.
function K.channel_held(ch)
  return ch[BUF], ch[FIRST], ch[LAST]
end

--- What a task that waits for channels stands at: a list of {channel, "send" or "receive", value}; `on` is its `task.on`.
function K.waited_for(on)
  if on.ch then
    return { { on.ch, on.sends and "send" or "receive", on.value } }
  end
  local list = {}
  for i = 1, raw.rawlen(on.cases) do
    local case = raw.rawget(on.cases, i)
    if K.class_of(case) == "channel.case" then
      list[#list + 1] = { case[CH], case[OP], case[VALUE] }
    end
  end
  return list
end

--- `coroutine.spawn(fn)`: a task of the unit; the spawner goes on first.
function K.libs.coroutine.spawn(fn)
  if raw.type(fn) ~= "function" then
    K.raise("bad argument #1 to 'spawn' (function expected, got " .. K.type(fn) .. ")")
  end
  return K.spawn_task(K.current, fn).co
end
