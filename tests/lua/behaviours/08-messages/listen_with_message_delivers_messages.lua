-- 8 `listen(topic, {message = true})` delivers Messages.
return function()
  local ch = process.listen("full", { message = true })
  process.send(process.pid(), "full", "value")
  process.send(process.pid(), "full")
  process.send(process.pid(), "full", 1, 2)
  local m = check.receive(ch)
  check.equal({ m:topic(), m:from(), m:payload():data() }, { "full", process.pid(), "value" })
  check.is_nil(check.receive(ch):payload())
  check.equal(#check.receive(ch):payload(), 2)
end
