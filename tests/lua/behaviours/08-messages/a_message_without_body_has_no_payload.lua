-- 8 `m:payload()`: nil when it was sent without body.
return function()
  check.is_true(process.send(process.pid(), "empty"))
  local m = check.receive(process.inbox())
  check.equal(m:topic(), "empty")
  check.is_nil(m:payload())
end
