-- 4 Bad argument values: `nil, Invalid`; wrong argument types on core functions: raised.
local time = require("time")

return function()
  check.fails("Invalid", nil, time.after(0))
  check.fails("Invalid", nil, process.listen(""))
  check.raises(errors.new, nil, 1)
  check.raises(string.rep, nil, {}, 2)
end
