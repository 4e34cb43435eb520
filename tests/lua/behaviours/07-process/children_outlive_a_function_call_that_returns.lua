-- 9 A normal return never breaks links: the children of a function call live on, linked or not.
-- imports: puppets=lua.support:puppets
return function()
  local pid, future = puppets.call()
  local linked = puppets.ask(pid, "spawn_linked", "lua.support:collect", "lua.support:processes", 1)
  local free = puppets.ask(pid, "spawn", "lua.support:collect", "lua.support:processes", 1)
  puppets.tell(pid, "return", "done")
  check.equal(check.receive(future:channel()):data(), "done")
  for i, child in ipairs({ linked, free }) do
    puppets.watch(child)
    process.send(child, "x", i)
    check.equal(puppets.exit(child).value[1].data, i)
  end
end
