-- 9 A unit that a link has killed has failed itself: its own links break, A-B-C.
-- imports: puppets=lua.support:puppets
return function()
  local a, b, c, d = puppets.new{ deaf = true }, puppets.new(), puppets.new{ deaf = true }, puppets.new()
  puppets.ask(a, "link", b)
  puppets.ask(b, "link", c)
  puppets.ask(c, "link", d)
  puppets.watch(a)
  puppets.tell(d, "fail", "at the far end")
  check.error_is(puppets.exit(a).error, "Internal", "linked process failed")
  for _, pid in ipairs({ b, c, d }) do
    check.fails("NotFound", "process not found", process.send(pid, "x"))
  end
end
