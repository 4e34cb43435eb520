-- 8 A payload is a copy (3.4): neither side sees what the other changes.
return function()
  local body = { n = 1, inner = { 1 } }
  process.send(process.pid(), "copy", body)
  body.n, body.inner[1] = 2, 2
  local inbox = process.inbox()
  local m = check.receive(inbox)
  check.equal(m:payload():data(), { n = 1, inner = { 1 } })
  check.equal(body, { n = 2, inner = { 2 } })
end
