-- 1.3 Each listed module is set as a global and is what `require(name)` returns.
-- modules: time json
return function()
  check.type_is(time, "table")
  check.is_true(require("time") == time)
  check.is_true(require("json") == json)
end
