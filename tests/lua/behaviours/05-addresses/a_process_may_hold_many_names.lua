-- 5.2 A process may hold many names.
return function()
  local one, two, three = check.unique("one"), check.unique("two"), check.unique("three")
  for _, name in ipairs{ one, two, three } do check.is_true(process.registry.register(name)) end
  for _, name in ipairs{ one, two, three } do
    check.is_true(process.send(name, "to", name))
    check.equal(check.receive(process.listen("to")), name)
  end
end
