-- 12.2 `v1() v4() v7()` → `string, nil`.
local uuid = require("uuid")

return function()
  local seen = {}
  for _, name in ipairs{ "v1", "v4", "v7" } do
    for _ = 1, 50 do
      local id, err = uuid[name]()
      check.is_nil(err)
      check.matches(id, "^%x%x%x%x%x%x%x%x%-%x%x%x%x%-" .. name:sub(2) .. "%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$")
      check.is_nil(seen[id])
      seen[id] = true
    end
  end
end
