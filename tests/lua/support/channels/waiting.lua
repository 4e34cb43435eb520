local M = {}

--- Receives from a channel that nobody else has.
function M.waits_for_nothing()
  channel.new():receive()
end

--- Two coroutines that wait for each other.
function M.deadlocks()
  local a, b = channel.new(), channel.new()
  coroutine.spawn(function() a:send(b:receive()) end)
  b:send(a:receive())
end

--- All coroutines wait, one of them for messages: the first ends it.
function M.idles()
  local never = channel.new()
  coroutine.spawn(function() never:receive() end)
  return process.inbox():receive():payload():data()
end

return M
