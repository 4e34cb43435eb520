-- 15 Builder argument errors are raised (trap 7).
return function()
  local spawner = process.with_options{}
  check.raises(function() process.with_context("x") end)
  check.raises(function() process.with_context{ [1] = "x" } end)
  check.raises(function() process.with_options(7) end)
  check.raises(function() spawner:with_context{ [true] = 1 } end)
  check.raises(function() spawner:with_context() end)
  check.raises(function() spawner:with_options("x") end)
  check.raises(function() spawner:with_name("") end)
  check.raises(function() spawner:with_name() end)
  check.raises(function() spawner:with_name(7) end)
  check.raises(function() spawner:with_message() end)
  check.raises(function() spawner:with_message("", 1) end)
  check.raises(function() spawner:with_message("@x", 1) end)
end
