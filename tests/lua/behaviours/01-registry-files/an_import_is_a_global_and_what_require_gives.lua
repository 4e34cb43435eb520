-- 1.3 The value of an import is set as global `alias`, and `require("alias")` returns it.
-- imports: cash=lua.support:money
return function()
  check.equal(cash.name, "money")
  check.is_true(require("cash") == cash)
  check.is_nil(rawget(_G, "money"))
end
