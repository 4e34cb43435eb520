-- 3.2 `os`: only time, date, clock, difftime and the string os.platform.
return function()
  for name in ("time date clock difftime"):gmatch("%S+") do
    check.equal(type(os[name]), "function", name)
  end
  check.type_is(os.platform, "string")
  for name in ("execute exit getenv remove rename setlocale tmpname"):gmatch("%S+") do
    check.is_nil(os[name], name)
  end
  check.is_true(os.time() > 1600000000)
  check.equal(os.date("!%Y-%m-%d", 0), "1970-01-01")
  check.equal(os.difftime(10, 4), 6)
end
