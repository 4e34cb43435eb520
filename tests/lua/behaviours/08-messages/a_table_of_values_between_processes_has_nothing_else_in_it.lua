-- 8 Several bodies reach `listen` as a table of values: those that were sent, also from a process of the same node.
-- as: process
return function()
  local ch = process.listen("plain")
  process.send(process.pid(), "plain", 1, "two", 3)
  local keys = {}
  for key in pairs(check.receive(ch)) do keys[#keys + 1] = key end
  check.equal(keys, { 1, 2, 3 })
end
