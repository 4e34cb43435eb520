-- 13.1 `json.decode(s)` → value; integers stay integers.
local json = require("json")

return function()
  local got, err = json.decode(' { "a" : [1, 2.5, true, "x\\u00e9\\n"], "b": {} } ')
  check.is_nil(err)
  check.equal(got, { a = { 1, 2.5, true, "xé\n" }, b = {} })
  check.type_is(got.a[1], "integer")
  check.type_is(got.a[2], "float")
  check.type_is(json.decode("1.0"), "float")
  check.equal(check.type_is(json.decode("9007199254740993"), "integer"), 9007199254740993)
  check.equal(json.decode("-1e3"), -1000)
  check.equal(json.decode('"\\ud83d\\ude00"'), "😀")
  check.is_false(json.decode("false"))
end
