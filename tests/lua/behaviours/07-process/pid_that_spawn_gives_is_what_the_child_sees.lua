-- 7.2 `process.spawn` gives the PID of the child, which it sees with `process.pid()`.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  check.type_is(puppet, "string")
  check.equal(puppets.ask(puppet, "pid"), puppet)
  puppets.tell(puppet, "return")
end
