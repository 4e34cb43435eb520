-- 11.9 Signals that were not read go over to the new run, in order; those that were read do not.
-- as: workflow
return function(round)
  local me = process.pid()
  if round == nil then
    for i = 1, 5 do process.send(me, i == 3 and "listened" or "n", i) end
    local inbox, listened = process.inbox(), process.listen("listened")
    check.equal(check.receive(inbox, "20s"):payload():data(), 1)
    process.upgrade(nil, 2)
  end
  local inbox, got = process.inbox(), {}
  for i = 1, 4 do
    local m = check.receive(inbox, "20s")
    got[i] = { m:topic(), m:payload():data() }
  end
  check.equal(got, { { "n", 2 }, { "listened", 3 }, { "n", 4 }, { "n", 5 } })
  check.equal(channel.select{ inbox:case_receive(), default = true }.default, true)
end
