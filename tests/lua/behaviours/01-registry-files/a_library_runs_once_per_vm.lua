-- 1.3 In each VM every library runs once, dependencies first: those who import it share its value.
-- imports: price=lua.support:price, tax=lua.support:tax, money=lua.support:money
return function()
  check.is_true(price.money == tax.money)
  check.is_true(price.money == money)
  check.equal(money.runs, 1)
end
