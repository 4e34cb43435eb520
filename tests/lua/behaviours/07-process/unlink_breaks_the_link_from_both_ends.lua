-- 7.3 After `unlink` neither end hears of the other's failure, whichever end asked.
-- imports: puppets=lua.support:puppets
return function()
  process.set_options{ trap_links = true }
  local one, other = puppets.new(), puppets.new()
  process.link(one)
  check.is_true((process.unlink(one)))
  puppets.ask(other, "link", process.pid())
  check.is_true((process.unlink(other)))
  for _, puppet in ipairs({ one, other }) do
    puppets.watch(puppet)
    puppets.tell(puppet, "fail", "no")
    check.matches(puppets.exit(puppet).error, "no")
  end
  check.nothing(process.events(), "20ms")
end
