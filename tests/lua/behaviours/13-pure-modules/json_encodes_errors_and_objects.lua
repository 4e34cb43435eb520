-- 13.1 `json.encode`: Error → its text; other objects → `null`.
local json, time = require("json"), require("time")

return function()
  check.equal(json.encode(errors.new("sold out")), '"sold out"')
  check.equal(json.encode({ err = errors.new{ message = "no", kind = "Invalid" } }), '{"err":"no"}')
  check.equal(json.encode({ channel.new(), time.now(), 1 }), "[null,null,1]")
  check.equal(json.encode(time.now()), "null")
end
