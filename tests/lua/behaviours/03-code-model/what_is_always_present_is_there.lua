-- 3.2 The globals that are always present.
-- modules:
return function()
  local functions = "assert error getmetatable ipairs next pairs pcall print rawequal rawget rawset select setmetatable "
    .. "tonumber tostring type unpack xpcall require subscribe unsubscribe"
  for name in functions:gmatch("%S+") do
    check.equal(type(_G[name]), "function", name)
  end
  for name in ("string math table coroutine errors os package process channel payload"):gmatch("%S+") do
    check.equal(type(_G[name]), "table", name)
  end
  check.type_is(_VERSION, "string")
  check.is_true(_G._G == _G)
end
