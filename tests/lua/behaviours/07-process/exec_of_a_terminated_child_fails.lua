-- 7.2 `process.exec` gives the error `process terminated` when somebody kills the child.
-- imports: puppets=lua.support:puppets
return function()
  local result, shown = channel.new(1), process.listen("here")
  coroutine.spawn(function()
    local value, err = process.exec("lua.support:puppet", "lua.support:processes", process.pid(), { shows = true })
    result:send({ value = value, err = err })
  end)
  check.is_true((process.terminate(check.receive(shown))))
  local got = check.receive(result)
  check.is_nil(got.value)
  check.error_is(got.err, "Internal", "^process terminated$")
end
