-- 3.2 `print(...)`: arguments through `tostring`; no return value.
return function()
  local shouts = setmetatable({}, { __tostring = function() return "a table that speaks" end })
  check.equal(select("#", print("one", 2, nil, true, {}, errors.new("an error"), shouts)), 0)
  check.equal(select("#", print()), 0)
end
