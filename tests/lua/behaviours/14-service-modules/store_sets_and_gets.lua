-- 14.6 `get(k)` → value; `set(k, v[, ttl_seconds])` → true; the same for a store of the mesh.
local store = require("store")

return function()
  for _, id in ipairs{ "lua.support:services.memory", "lua.support:services.kv" } do
    local s, key = assert(store.get(id)), check.unique("key")
    for _, value in ipairs{ 5, 2.5, "text", true, false, { list = { 1, 2 }, name = "x" }, "\0\xFF" } do
      check.is_true(s:set(key, value))
      local got, err = s:get(key)
      check.equal(got, value, id)
      check.is_nil(err)
    end
    check.is_true(s:set(key, { 1 }))
    s:get(key)[1] = 2
    check.equal(s:get(key), { 1 }, "a value is a copy")
    s:release()
  end
end
