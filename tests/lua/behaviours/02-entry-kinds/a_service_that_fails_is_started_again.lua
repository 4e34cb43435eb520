-- 2.2 A service whose process ends with an error is started again, as a new process.
return function()
  local name, lookup = "lua.support.phoenix", process.registry.lookup
  for _ = 1, 2 do
    local pid = check.eventually(function() return lookup(name) end)
    process.send(pid, "fail")
    local second = check.eventually(function()
      local now = lookup(name)
      return now ~= pid and now
    end)
    check.fails("NotFound", "process not found", process.send(pid, "ask"))
    process.send(second, "ask")
    check.equal(check.receive(process.listen("phoenix")).pid, second)
  end
end
