-- 5.2 A name stands for its consistent holder first, then the eventual one, then the local one.
-- imports: puppets=lua.support:puppets
return function()
  local r, name = process.registry, check.unique("order")
  local at_first, eventual, consistent = puppets.new(), puppets.new(), puppets.new()
  r.register(name, at_first)
  check.equal(r.lookup(name), at_first)
  check.is_true((r.register(name, eventual, r.EVENTUAL)))
  check.eventually(function() return r.lookup(name) == eventual end)
  check.is_true((r.register(name, consistent, r.CONSISTENT)))
  check.eventually(function() return r.lookup(name) == consistent end)
  check.equal(puppets.ask(name, "pid"), consistent)
  for _, pid in ipairs({ at_first, eventual, consistent }) do puppets.tell(pid, "return") end
end
