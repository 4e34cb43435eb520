-- 13.1 `json.encode`: whole floats as integers.
local json = require("json")

return function()
  check.equal(json.encode(3.0), "3")
  check.equal(json.encode({ n = -2.0 }), '{"n":-2}')
  check.equal(json.encode(10 / 2), "5")
end
