-- 14.4 `parse_id(text)` → `{ns, name}`; first `:` splits; no `:` → ns `""`.
local registry = require("registry")

return function()
  check.equal(registry.parse_id("shop.orders:price"), { ns = "shop.orders", name = "price" })
  check.equal(registry.parse_id("a:b:c"), { ns = "a", name = "b:c" })
  check.equal(registry.parse_id("price"), { ns = "", name = "price" })
end
