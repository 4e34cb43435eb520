-- 8 What a process has sent before its end is there when its EXIT is seen.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:speaks_and_ends", "lua.support:processes", process.pid(), 20)
  puppets.exit(pid)
  local words, seen = process.listen("word"), 0
  while true do
    local r = channel.select{ words:case_receive(), default = true }
    if r.default then break end
    seen = seen + 1
    check.equal(r.value, seen)
  end
  check.equal(seen, 20)
end
