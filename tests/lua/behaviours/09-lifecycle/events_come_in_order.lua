-- 8 Order is kept per sender, for events as well.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  for i = 1, 30 do process.cancel(puppet, "n" .. i) end
  for i = 1, 30 do check.equal(puppets.event().reason, "n" .. i) end
  puppets.tell(puppet, "return")
end
