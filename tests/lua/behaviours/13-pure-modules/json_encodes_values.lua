-- 13.1 `json.encode(v)` → string: nil → `null`, lists → arrays, string keys → objects.
local json = require("json")

return function()
  check.equal(json.encode(nil), "null")
  check.equal(json.encode(true), "true")
  check.equal(json.encode(12), "12")
  check.equal(json.encode(1.5), "1.5")
  check.equal(json.encode("a\"b\\\n\1é"), [["a\"b\\\n\u0001é"]])
  check.equal(json.encode({ 1, "two", { 3 } }), '[1,"two",[3]]')
  check.equal(json.encode({ name = { "x" } }), '{"name":["x"]}')
  check.equal(select(2, json.encode({ a = 1 })), nil)
end
