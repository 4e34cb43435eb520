-- 9 With both monitor and link, EXIT comes first, in whatever order they were added.
-- imports: puppets=lua.support:puppets
return function()
  process.set_options{ trap_links = true }
  local puppet = puppets.new()
  process.link(puppet)
  process.monitor(puppet)
  puppets.tell(puppet, "fail", "no")
  check.equal(check.receive(process.events()).kind, process.event.EXIT)
  check.equal(check.receive(process.events()).kind, process.event.LINK_DOWN)
end
