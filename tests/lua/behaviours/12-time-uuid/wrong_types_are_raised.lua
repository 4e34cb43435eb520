-- 4 Wrong argument types on core functions are raised.
local time = require("time")

return function()
  local t = time.unix(0, 0)
  check.raises(function() time.unix("now", 0) end)
  check.raises(function() time.date("2024", 1, 1) end)
  check.raises(function() time.parse(1, "x") end)
  check.raises(function() time.load_location({}) end)
  check.raises(function() time.fixed_zone("X", "east") end)
  check.raises(function() t:sub(5) end)
  check.raises(function() t:after("now") end)
  check.raises(function() t:format(1) end)
  check.raises(function() t:in_location("UTC") end)
end
