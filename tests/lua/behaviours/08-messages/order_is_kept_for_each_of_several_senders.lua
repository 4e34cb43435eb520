-- 8 Order is kept per sender–receiver pair, whoever else sends meanwhile.
return function()
  local n, senders = 50, 4
  for s = 1, senders do
    process.spawn("lua.support:sends_many", "lua.support:processes", process.pid(), "count" , n)
  end
  local inbox, last, seen = process.inbox(), {}, 0
  while seen < n * senders do
    local m = check.receive(inbox)
    local from, i = m:from(), m:payload():data()
    check.equal(i, (last[from] or 0) + 1)
    last[from] = i
    seen = seen + 1
  end
end
