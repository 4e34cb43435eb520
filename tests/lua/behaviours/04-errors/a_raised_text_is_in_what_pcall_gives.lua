-- 4 `pcall` of a plain `error("t")` gives a value whose text contains `t`.
return function()
  local ok, caught = pcall(function() error("the till is stuck") end)
  check.is_false(ok)
  check.matches(tostring(caught), "the till is stuck$")
  ok, caught = pcall(function() local t = nil; return t.field end)
  check.is_false(ok)
  check.matches(tostring(caught), "index a nil value")
end
