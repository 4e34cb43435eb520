-- 3.2 `math`: 5.4 plus the older pow, log10, atan2, sinh, cosh, tanh.
return function()
  check.equal(math.pow(2, 10), 1024)
  check.is_true(math.abs(math.log10(1000) - 3) < 1e-12)
  check.is_true(math.abs(math.atan2(1, -1) - 3 * math.pi / 4) < 1e-12)
  check.is_true(math.abs(math.sinh(1) - (math.exp(1) - math.exp(-1)) / 2) < 1e-12)
  check.is_true(math.abs(math.cosh(1) - (math.exp(1) + math.exp(-1)) / 2) < 1e-12)
  check.is_true(math.abs(math.tanh(1) - math.sinh(1) / math.cosh(1)) < 1e-12)
  check.equal(math.type(1), "integer")
  check.equal(math.tointeger(3.0), 3)
  check.equal(7 // 2, 3)
end
