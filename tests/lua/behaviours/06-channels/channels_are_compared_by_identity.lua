-- 6.1 Channels are compared by identity, and may be the keys of a table.
return function()
  local a, b = channel.new(), channel.new()
  check.is_true(a == a)
  check.is_true(a ~= b)
  local names = { [a] = "a", [b] = "b" }
  check.equal(names[a] .. names[b], "ab")
end
