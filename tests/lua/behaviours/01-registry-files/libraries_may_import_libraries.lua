-- 1.3 Libraries may import libraries; in them too, the alias is a global and what `require` gives.
-- imports: price=lua.support:price
return function()
  check.equal(price.name, "price")
  check.equal(price.money.name, "money")
  check.is_true(price.required == price.money)
end
