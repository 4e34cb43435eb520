-- 3.1 `process.exec` suspends only the coroutine that calls it.
-- imports: puppets=lua.support:puppets
return function()
  local results, names = channel.new(2), { "one", "two" }
  for _, name in ipairs(names) do
    coroutine.spawn(function()
      results:send(process.exec("lua.support:collect", "lua.support:processes", 0, "10ms") and name)
    end)
  end
  check.equal(results:receive(), "one")
  check.equal(results:receive(), "two")
end
