-- 5.2 A name that another process has: `AlreadyExists`, `name already registered`; the same process again: true.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  for _, scope in ipairs({ process.registry.LOCAL, process.registry.CONSISTENT }) do
    local name = check.unique("taken")
    check.is_true((process.registry.register(name, process.pid(), scope)))
    check.is_true((process.registry.register(name, process.pid(), scope)))
    local err = check.fails("AlreadyExists", "name already registered", process.registry.register(name, puppet, scope))
    check.is_false(err:retryable())
    check.equal(process.registry.lookup(name), process.pid())
  end
  puppets.tell(puppet, "return")
end
