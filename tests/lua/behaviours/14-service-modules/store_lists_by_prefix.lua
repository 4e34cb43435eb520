-- 14.6 `list{prefix, limit, …}` → `{items, …}`.
local store = require("store")

return function()
  for _, id in ipairs{ "lua.support:services.memory", "lua.support:services.kv" } do
    local s, prefix = assert(store.get(id)), check.unique("list") .. "/"
    for _, name in ipairs{ "b", "a", "c" } do s:set(prefix .. name, name) end
    local function values(options)
      local list = {}
      for i, item in ipairs(assert(s:list(options)).items) do list[i] = item.value end
      return list
    end
    check.equal(values{ prefix = prefix }, { "a", "b", "c" })
    check.equal(values{ prefix = prefix, limit = 2 }, { "a", "b" })
    check.equal(values{ prefix = prefix .. "x" }, {})
    local page = s:list{ prefix = prefix, limit = 2 }
    check.equal(page.items[1].key, prefix .. "a")
    check.is_true(page.has_more)
    check.equal(values{ prefix = prefix, after = page.cursor }, { "c" })
  end
end
