-- 12.1 `time.parse_duration` reads Go duration strings with the units ns us µs ms s m h.
local time = require("time")

return function()
  for text, ns in pairs{
    ["7ns"] = 7, ["2us"] = 2000, ["2µs"] = 2000, ["250ms"] = 250000000, ["1.5s"] = 1500000000, ["2m"] = 120000000000,
    ["1h30m"] = 5400000000000, ["-3s"] = -3000000000, ["0"] = 0,
  } do
    local d, err = time.parse_duration(text)
    check.is_nil(err, text)
    check.equal(d:nanoseconds(), ns, text)
  end
end
