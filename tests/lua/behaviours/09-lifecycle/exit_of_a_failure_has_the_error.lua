-- 9 EXIT of a process that failed: `result.error` is its Error with all it says, `result.value` is nil, no field `error`.
-- imports: puppets=lua.support:puppets
return function()
  local own = errors.new{ message = "broken", kind = errors.RATE_LIMITED, retryable = true, details = { after = 5 } }
  for _, entry in ipairs({ "raise", "give" }) do
    local pid = entry == "raise" and process.spawn_monitored("lua.support:raise", "lua.support:processes", own)
      or process.spawn_monitored("lua.support:give", "lua.support:processes", nil, own)
    local event = check.receive(process.events())
    check.equal(event.from, pid)
    check.is_nil(event.error)
    check.is_nil(event.result.value)
    check.type_is(event.result.error, "userdata")
    check.error_is(event.result.error, "RateLimited", "^broken$", true)
    check.equal(event.result.error:details(), { after = 5 })
  end
end
