-- 7.2 `process.spawn` returns while the child runs.
-- imports: puppets=lua.support:puppets
return function()
  local one, other = puppets.new(), puppets.new()
  check.is_true(one ~= other)
  puppets.tell(one, "return")
  puppets.tell(other, "return")
end
