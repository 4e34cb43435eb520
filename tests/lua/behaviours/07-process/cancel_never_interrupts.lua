-- 15 Cancel never interrupts: a process that does not read events goes on (trap 10).
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new{ deaf = true }
  puppets.watch(puppet)
  for _ = 1, 3 do check.is_true((process.cancel(puppet, "stop it"))) end
  check.equal(puppets.ask(puppet, "pid"), puppet)
  puppets.tell(puppet, "return", "in peace")
  check.equal(puppets.exit(puppet), { value = "in peace" })
end
