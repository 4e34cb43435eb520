-- 3.4 Arguments are copied deep: neither side sees what the other changes.
-- as: process
return function()
  local given = { list = { 1, 2 } }
  local back = process.exec("lua.support:give", "lua.support:processes", given)
  back.list[1] = "changed"
  check.equal(given, { list = { 1, 2 } })
  local pid = process.spawn_monitored("lua.support:give", "lua.support:processes", given)
  given.list[2] = "changed"
  check.equal(check.receive(process.events()).result.value, { list = { 1, 2 } })
  check.type_is(pid, "string")
end
