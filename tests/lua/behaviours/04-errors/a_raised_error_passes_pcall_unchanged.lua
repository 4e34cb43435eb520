-- 4 `error(e)` with an Error passes it unchanged through `pcall`.
return function()
  local err = errors.new{ message = "m", kind = errors.CONFLICT }
  local ok, caught = pcall(error, err)
  check.is_false(ok)
  check.is_true(caught == err)
  ok, caught = pcall(function() error(err) end)
  check.is_false(ok)
  check.is_true(caught == err)
  local handled
  check.is_false((xpcall(function() error(err) end, function(e) handled = e end)))
  check.is_true(handled == err)
end
