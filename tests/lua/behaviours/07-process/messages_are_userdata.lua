-- 3.2 `type` of a Message and of a Payload is "userdata".
return function()
  process.send(process.pid(), "x", 1)
  local message = check.receive(process.inbox())
  check.type_is(message, "userdata")
  check.type_is(message:payload(), "userdata")
end
