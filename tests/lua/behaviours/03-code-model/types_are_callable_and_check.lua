-- 3.2 `string(v) number(v) integer(v) boolean(v)` return `v` if it has that type, else raise.
return function()
  check.equal(string("x"), "x")
  check.equal(number(1.5), 1.5)
  check.equal(number(2), 2)
  check.equal(integer(3), 3)
  check.is_false(boolean(false))
  check.raises(string, nil, 1)
  check.raises(number, nil, "1")
  check.raises(integer, nil, 1.5)
  check.raises(integer, nil, "1")
  check.raises(boolean, nil, nil)
  check.equal(string.upper("still a library"), "STILL A LIBRARY")
end
