-- 3.2 `type(x)` is "userdata" for Error, Time, Duration, Message, Payload, Future, channel, … objects.
local time = require("time")
local funcs = require("funcs")

return function()
  process.send(process.pid(), "note", 1)
  local message = check.receive(process.inbox())
  local objects = {
    Error = errors.new("x"), Time = time.now(), Duration = time.parse_duration("1s"), Message = message,
    Payload = message:payload(), Future = funcs.async("lua.support:echo", 1), channel = channel.new(),
    case = channel.new():case_receive(), executor = funcs.new(), spawner = process.with_options({}),
    made = payload.new({ 1 }), timer = time.timer("1s"), location = time.utc,
  }
  for name, object in pairs(objects) do
    check.equal(type(object), "userdata", name)
  end
end
