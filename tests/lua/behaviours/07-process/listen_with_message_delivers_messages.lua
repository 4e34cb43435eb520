-- 8 `listen` with `{message = true}` delivers Messages.
return function()
  local ch = process.listen("x", { message = true })
  process.send(process.pid(), "x", 5)
  local message = check.receive(ch)
  check.equal(message:topic(), "x")
  check.equal(message:from(), process.pid())
  check.equal(message:payload():data(), 5)
end
