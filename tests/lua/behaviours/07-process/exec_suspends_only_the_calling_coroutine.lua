-- 3.1 `process.exec` suspends only the coroutine that calls it.
return function()
  local results = channel.new(2)
  coroutine.spawn(function()
    results:send(process.exec("lua.support:collect", "lua.support:processes", 0, "10ms") and "exec")
  end)
  coroutine.spawn(function() results:send("meanwhile") end)
  check.equal(results:receive(), "meanwhile")
  check.equal(results:receive(), "exec")
end
