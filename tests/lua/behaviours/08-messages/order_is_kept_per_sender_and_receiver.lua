-- 8 Order is kept per sender–receiver pair.
return function()
  local n = 200
  process.spawn("lua.support:sends_many", "lua.support:processes", process.pid(), "count", n)
  local ch = process.listen("count")
  for i = 1, n do check.equal(check.receive(ch), i) end
end
