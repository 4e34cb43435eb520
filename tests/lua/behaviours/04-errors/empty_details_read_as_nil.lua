-- 4 `e:details()`: an empty table reads as nil.
return function()
  check.is_nil(errors.new{ message = "m", details = {} }:details())
end
