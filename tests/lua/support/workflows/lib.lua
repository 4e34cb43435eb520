-- What behaviours need to start workflows and to hear of their ends:
--
--   wf.start(name, options, ...)   start lua.support:<name>, monitored, under start options (or nil); gives its PID
--   wf.exit(pid)                   its EXIT event, at most 20 s; those of others are kept for later
--   wf.value(pid), wf.error(pid)   what it came to; raise when it is the other
--   wf.noted(key, what)            wait until a function has noted this under the key (functions/sleep.lua)
local time, funcs = require("time"), require("funcs")
local wf = { worker = "lua.support:worker" }

local WAIT = "20s" -- in a workflow whose owner is killed the clock goes on for some seconds

function wf.start(name, options, ...)
  local pid, err = process.with_options(options or {}):spawn_monitored("lua.support:" .. name, wf.worker, ...)
  if not pid then error(err, 2) end
  return pid
end

local ended = {}

local function exit(pid)
  local events, limit = process.events(), time.after(WAIT)
  while not ended[pid] do
    local r = channel.select{ events:case_receive(), limit:case_receive() }
    if r.channel == limit then error("no EXIT of " .. pid .. " within " .. WAIT, 3) end
    if r.value.kind == process.event.EXIT then ended[r.value.from] = r.value end
  end
  return ended[pid]
end

function wf.exit(pid)
  return exit(pid)
end

function wf.value(pid)
  local result = exit(pid).result
  if result.error then error(result.error, 2) end
  return result.value
end

function wf.error(pid)
  local result = exit(pid).result
  if not result.error then error("it did not fail: " .. tostring(result.value), 2) end
  return result.error
end

function wf.noted(key, what)
  for _ = 1, 500 do
    if funcs.call("lua.support:fn.attempts", key .. "-" .. what) == what then return end
    time.sleep("10ms")
  end
  error("under " .. key .. " is never noted " .. tostring(what), 2)
end

return wf
