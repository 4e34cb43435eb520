-- 3.4 Kept: tables.
local funcs = require("funcs")

return function()
  local shapes = {
    {}, { 1, 2, 3 }, { a = 1 }, { 1, 2, x = "mixed" }, { [1] = "sparse", [4] = "list" }, { [-1] = "a", [0] = "b" },
    { [1.5] = "float key" }, { [true] = "boolean key" }, { { {} }, { nested = { { 1 } } } },
  }
  for i, shape in ipairs(shapes) do
    check.equal(funcs.call("lua.support:echo", shape), shape, "shape " .. i)
  end
end
