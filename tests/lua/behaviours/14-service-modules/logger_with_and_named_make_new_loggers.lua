-- 14.1 `logger:with(fields)` and `logger:named(name)` → new logger.
local logger = require("logger")

return function()
  local with, named = logger:with({ order = "o-1" }), logger:named("shop")
  for _, made in ipairs{ with, named, with:named("x"), named:named("y"):with({ a = 1 }) } do
    check.type_is(made, "userdata")
    check.is_true(made ~= logger)
    made:info("a line of the suite", { n = 1 })
  end
end
