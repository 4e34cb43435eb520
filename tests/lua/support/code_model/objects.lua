local time = require("time")
return {
  --- Whether it was given objects, and objects of its own.
  main = function(given)
    return {
      given = { time = given.time == nil, duration = given.duration == nil, channel = given.channel == nil, kept = given.kept },
      now = time.now(), channel = channel.new(), duration = time.parse_duration("1s"), kept = "yes",
    }
  end,
  cyclic = function()
    local t = {}
    t.t = t
    return t
  end,
}
