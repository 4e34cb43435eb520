-- 5.2 `register(name)`: default pid is self.
return function()
  local name = check.unique("me")
  check.equal({ process.registry.register(name) }, { true })
  check.equal(process.registry.lookup(name), process.pid())
end
