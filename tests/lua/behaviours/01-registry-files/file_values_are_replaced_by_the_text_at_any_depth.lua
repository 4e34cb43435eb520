-- 1.1 Any string value at any depth that starts with file:// is that file's text; file:///x counts from the source root.
local registry = require("registry")

return function()
  local data = registry.get("lua.support:texts").data
  local text = "a text from a file\n"
  check.equal(data.shallow, text)
  check.equal(data.deep.list, { text, "plain" })
  check.equal(data.from_root, text)
end
