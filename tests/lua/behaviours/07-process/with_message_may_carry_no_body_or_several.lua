-- 7.2 A queued message has as many bodies as it was given.
return function()
  local pid = process.with_options{}:with_message("none"):with_message("several", 1, "two", { 3 })
    :spawn_monitored("lua.support:collect", "lua.support:processes", 2)
  local list = check.receive(process.events()).result.value
  check.is_nil(list[1].data)
  check.equal(list[2].data, { 1, "two", { 3 } })
  check.type_is(pid, "string")
end
