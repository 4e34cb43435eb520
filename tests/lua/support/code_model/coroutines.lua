local time = require("time")
return {
  --- Leaves a coroutine behind that would tell the caller, had it the time.
  leaves = function(to)
    coroutine.spawn(function()
      time.sleep("100ms")
      process.send(to, "left", "still there")
    end)
    return "main is done"
  end,
  raises = function()
    coroutine.spawn(function() error("in a coroutine") end)
    time.sleep("10s")
    return "survived"
  end,
  raises_an_error = function()
    coroutine.spawn(function() error(errors.new{ message = "sold out", kind = errors.CONFLICT }) end)
    channel.new():receive()
  end,
  --- Waits for what cannot come.
  blocks = function()
    channel.new():receive()
  end,
  upgrades = function()
    return process.upgrade()
  end,
}
