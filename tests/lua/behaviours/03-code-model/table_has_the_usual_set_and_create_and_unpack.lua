-- 3.2 `table`: the usual set, plus `table.create(narr, nrec)` and `table.unpack`.
return function()
  for name in ("concat insert move pack remove sort unpack create"):gmatch("%S+") do
    check.equal(type(table[name]), "function", name)
  end
  check.equal(table.create(10, 5), {})
  local made = table.create(2, 0)
  made[1] = "x"
  check.equal(made, { "x" })
  check.equal({ table.unpack({ 1, nil, 3 }, 1, 3) }, { 1, nil, 3 })
  check.equal({ unpack({ 1, 2 }) }, { 1, 2 })
end
