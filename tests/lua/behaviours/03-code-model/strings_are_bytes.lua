-- 3.4 Kept: byte strings.
local funcs = require("funcs")

return function()
  local all = {}
  for i = 0, 255 do all[#all + 1] = string.char(i) end
  local bytes = table.concat(all)
  check.is_true(funcs.call("lua.support:echo", bytes) == bytes)
  check.is_true(funcs.call("lua.support:echo", { [bytes] = bytes })[bytes] == bytes)
  check.equal(funcs.call("lua.support:echo", ""), "")
end
