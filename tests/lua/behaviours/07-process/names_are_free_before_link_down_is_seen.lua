-- 5.2 The names of a process that fails are free when a linked unit hears of it.
-- imports: puppets=lua.support:puppets
return function()
  process.set_options{ trap_links = true }
  local name, puppet = check.unique("free"), puppets.new()
  process.link(puppet)
  puppets.ask(puppet, "register", name)
  puppets.ask(puppet, "register", name, puppet, process.registry.CONSISTENT)
  puppets.tell(puppet, "fail", "no")
  check.equal(check.receive(process.events()).kind, process.event.LINK_DOWN)
  check.fails("NotFound", "name not registered", process.registry.lookup(name))
end
