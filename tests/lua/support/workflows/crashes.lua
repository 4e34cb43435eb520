-- Waits for ever, while a coroutine of it raises an error.
return { main = function()
  coroutine.spawn(function() error("it broke") end)
  process.inbox():receive()
end }
