-- 7.2 Queued messages are there when `main` begins, before what the process says to itself.
return function()
  process.with_options{}:with_message("a"):with_message("b"):spawn_monitored("lua.support:hasty", "lua.support:processes")
  local topics = check.receive(process.events()).result.value
  check.equal({ topics[1], topics[2] }, { "a", "b" })
end
