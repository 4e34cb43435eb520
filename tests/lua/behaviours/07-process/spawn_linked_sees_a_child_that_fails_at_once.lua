-- 7.2 The link of `spawn_linked` is there before the child can run: LINK_DOWN comes even if it fails at once.
return function()
  process.set_options{ trap_links = true }
  for i = 1, 20 do
    local pid = process.spawn_linked("lua.support:raise", "lua.support:processes", "no " .. i)
    local event = check.receive(process.events())
    check.equal(event.kind, process.event.LINK_DOWN)
    check.equal(event.from, pid)
    check.matches(event.result.error, "no " .. i .. "$")
  end
end
